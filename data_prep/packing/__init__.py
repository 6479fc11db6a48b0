"""Samples to shards, and what stands beside them: each one's descent, the characters, their embeddings."""
