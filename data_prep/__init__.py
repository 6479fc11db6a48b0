"""From clips to shards: every person one identity, a mask on every frame, references from elsewhere."""
