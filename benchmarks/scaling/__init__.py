"""The parts of `benchmarks/scaling.py`."""
