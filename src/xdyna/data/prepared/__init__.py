"""Clips on disk that training reads: a JSON-lines manifest and, beside it, what was found in each clip.

`prepare` makes such a folder from videos, `synth` from the synthetic world; `ClipDataset` reads both.
"""
