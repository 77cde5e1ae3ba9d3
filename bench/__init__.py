"""The benchmark: fastrnn against every other implementation that is installed here.

python -m bench                  measure; python -m bench --help says what and how
python -m bench.report FILE      tables and plots of what was measured
python -m bench.compare REV      is this checkout slower than that commit anywhere?
python -m bench.gpu              check, measure and tune the GPU engine; needs torch and Triton
python -m bench.gpu_report FILE  make the engine's table and the README's of what it found
python -m bench.aot              what the GPU kernels cost on chip, by the compiler, without a GPU
python -m bench.trust            the fuzz command and the soak, and the README's lines of them
pytest bench/                    the same cases under pytest-benchmark
"""
