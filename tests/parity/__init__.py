"""Comparison with fixtures made by running the official code: `python -m tests.parity DIR [DIR ...]`.

A directory holds files `<roman numeral>_<name>.json` with tensors in `.safetensors` of the same name, and
network weights as `<name>.weights.safetensors`. Sizes, widths, heads, frames, seeds and steps are read
from there: nothing here knows a particular directory.
"""
