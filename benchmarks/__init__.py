"""Speed and memory: one question per script, results as JSON in benchmarks/results."""
