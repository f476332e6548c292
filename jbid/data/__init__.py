"""Data sets that users download themselves."""
