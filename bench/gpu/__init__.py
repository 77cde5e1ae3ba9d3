"""python -m bench.gpu: check, measure and tune the GPU engine on the machine at hand.

It needs a GPU, torch >= 2.11 and the triton that comes with it, and nothing else. What matters most
comes first, and each finished row is on disk at once, so a run that is cut short is still of use.

python -m bench.gpu_report FILE turns the result into the table that the engine chooses by.
"""
