"""Evaluations to look at: one page of one evaluation, one that sets several side by side. Scripts are in the page,
nothing is fetched but pictures that lie beside it."""
