"""Media in, pixels out: probe a file, sample its frames, say which frames they are (the plan), keep them, write clips.

``source`` opens a file safely, ``timeline`` reads when its frames are shown, ``decode`` decodes the chosen ones;
``probe`` and ``sample`` are the two verbs on top. Import from the submodule: this package imports nothing by itself.

Example:
    >>> from videosafety.video.sample import Sampling, sample_clip
    >>> clip = sample_clip("clips/a.mp4", sampling=Sampling(fps=1.0, max_frames=90))
    >>> clip.frames.shape, clip.timestamps_s[:2]
    ((12, 360, 640, 3), (0.0, 1.0))
"""
