"""python -m bench.aot: what the GPU kernels cost on chip, compiled for GPUs that are not here."""
