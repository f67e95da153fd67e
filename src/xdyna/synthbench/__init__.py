"""The synthetic benchmark: fifty frozen cases of people and scenes about which everything is known, animated by a
model and measured against the truth. `xdyna synthbench` is its door, `run.run` its function.
"""
