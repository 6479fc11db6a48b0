"""The loop and what it stands on: engine, optimizer, average, checkpoints, the run's folder."""
