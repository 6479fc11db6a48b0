"""Captions that say who each face is: asked of a model that sees, kept, and put into the samples."""
