"""From shards to batches: which samples in which order, cut how, and what is cached of them."""
