"""Other people's programs, trained with torch.nn's layers and with ours: python -m bench.programs

Each module here trains a model of one package by that package's own means. ``train(prepare)`` makes
the model from a fixed seed, hands it to ``prepare`` (which may accelerate it), trains it, and
returns its losses. What it does within ``phases.phase(name)`` is timed by itself, too.
"""
