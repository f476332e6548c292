"""Trainings of the networks that methods start from: `python -m jbid pretrain`."""
