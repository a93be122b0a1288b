"""The toy world: benign procedural clips with exact ground truth, and a tiny VideoLLaMA3 that lives in it.

"Harm" is a harmless symbol, so every label is exact and the whole paper runs on a laptop. The numbers say nothing about
real models. See docs/toyworld.md.
"""
