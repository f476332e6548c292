"""jbid.cli."""
