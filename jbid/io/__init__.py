"""jbid.io."""
