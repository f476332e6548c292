"""jbid.runtime."""
