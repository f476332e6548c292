"""jbid.deconvolution."""
