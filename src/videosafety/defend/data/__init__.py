"""Training data: rows of files and of Hugging Face datasets in, checked ``Example`` records out, mixed by recipe.

``source`` says what a recipe may ask for, ``mix`` is the verb, ``check`` looks at everything before training starts;
``raw``, ``conversation``, ``labelling`` and ``hub`` read, ``media`` looks after paths and files.

Example:
    >>> from videosafety.defend.data.mix import mix
    >>> from videosafety.defend.data.source import Source
    >>> mixture = mix([Source(name="vst", path="data/vst.jsonl", kind="conversations")], seed=0)
    >>> mixture.report.sources[0].num_left_out
    0
"""
