"""jbid.engine."""
