"""jbid.pipeline."""
