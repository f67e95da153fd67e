"""Our metrics against numbers made by running the public reference code: `python -m tests.metrics_parity DIR`.

A directory holds groups `<group>.json` with `<group>.safetensors`, and `manifests/<network>.json` from which the
weight files of the networks are written. Every input, size and name comes from there: nothing here knows a
particular directory. To add a group, write one module of this folder with a table `GROUPS` (group's name -> function
that yields the checks of a case) and name the module in `runner.MODULES`.
"""
