"""jbid.kernel_estimation."""
