"""One clip to what is seen in it: shots and their quality, faces followed through them, candidate windows."""
