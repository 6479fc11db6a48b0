"""How much memory a training needs on each GPU, from shapes alone: no weights, no GPU, no torch."""
