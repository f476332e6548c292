"""jbid.ops."""
