"""Networks. Flax lives here and nowhere else."""
