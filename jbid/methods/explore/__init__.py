"""jbid.methods.explore."""
