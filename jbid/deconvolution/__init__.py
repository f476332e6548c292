"""Non-blind deconvolution: the image from a known or estimated kernel."""
