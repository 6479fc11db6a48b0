"""Tracks to characters: an identity graph over the corpus, calibrated on itself, with ids that stay."""
