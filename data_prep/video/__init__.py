"""Video files: what one is, what is unusual about it, and the usual one that is made of it."""
