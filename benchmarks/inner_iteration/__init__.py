"""The parts of `benchmarks/inner_iteration.py`."""
