"""The parts of `benchmarks/load.py`: servers, 100,000 jobs, users, streams, downloads, a report."""
