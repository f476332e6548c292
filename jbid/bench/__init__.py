"""Benchmarks on published data sets: `python -m jbid.bench`."""
