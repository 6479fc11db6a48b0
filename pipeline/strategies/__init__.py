"""Consistency strategies: how the field keeps a cast the same, and how we do, each by name and in mixes."""
