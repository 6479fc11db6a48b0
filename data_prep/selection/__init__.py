"""Windows to samples: the cast, its references from elsewhere, the caption, and which split."""
