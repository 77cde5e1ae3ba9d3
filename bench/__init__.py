"""The benchmark: fastrnn against every other implementation that is installed here.

python -m bench                  measure; python -m bench --help says what and how
python -m bench.report FILE      tables and plots of what was measured
python -m bench.results NEW FILE put what was measured anew into a committed file
python -m bench.calls            short calls, at every size
python -m bench.cold             how long the first call takes, in fresh processes
python -m bench.programs         other people's programs
python -m bench.pages            the tables and pictures of README.md and RESULTS.md
python -m bench.compare REV      is this checkout slower than that commit anywhere?
python -m bench.gpu              check, measure and tune the GPU engine; needs torch and Triton
python -m bench.gpu_report FILE  make the engine's table of what it found
python -m bench.aot              what the GPU kernels cost on chip, by the compiler, without a GPU
python -m bench.trust            the fuzz command and the soak, at length
pytest bench/                    the same cases under pytest-benchmark
"""
