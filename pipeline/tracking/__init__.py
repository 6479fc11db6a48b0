"""Where a run is seen, and that nothing is lost on the way there."""
