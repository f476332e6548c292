"""Data sets of the benchmarks and sources of training data.

Users download the images themselves; the package contains none.
"""
