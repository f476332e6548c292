"""Files: images, kernels, weights and JSON."""
