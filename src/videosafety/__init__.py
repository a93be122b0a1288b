"""videosafety: measure and fix the safety that video language models lose once a video is there.

The listing is the paper: ``core`` (vocabulary), ``video``, ``models``, ``judges``, ``toyworld``, then the chapters;
``pipeline.py`` runs them in order. ``import videosafety`` imports no torch.
"""

__version__ = "0.1.0"
