"""The command ``python -m fastrnn``: the machine, a check against torch.nn, a real training job.

command.py holds it together; options reads the command line; text, check, training and agreement
compute; machine, report and existing show, with curves and style.
"""
