"""The benchmark: fastrnn against every other implementation that is installed here.

python -m bench                  measure; python -m bench --help says what and how
python -m bench.report FILE      tables and plots of what was measured
python -m bench.compare REV      is this checkout slower than that commit anywhere?
pytest bench/                    the same cases under pytest-benchmark
"""
