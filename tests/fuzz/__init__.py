"""Random modules on random tensors, next to torch.nn in float64: ``python -m tests.fuzz --help``.

A configuration is drawn from two numbers, ``seed`` and its place in the row, and nothing else; so
what is found can be had again. What is asked of each: check.py says.
"""
