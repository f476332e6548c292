"""Benchmarks on published data sets, synthetic and real images: `python -m jbid.bench`."""
