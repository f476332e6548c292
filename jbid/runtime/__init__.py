"""Surroundings of a run: compilation, memory, processes, console and command line."""
