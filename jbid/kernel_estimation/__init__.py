"""Kernel estimation from a single image, without a deep prior."""
