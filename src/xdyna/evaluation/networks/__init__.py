"""The networks behind the set metrics, in their published parameters' names.

Each is a plain module built without its weights; `load.load_network` gives it those of its published file.
"""
