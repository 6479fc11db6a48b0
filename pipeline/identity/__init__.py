"""The identity modules: encoder, bank and the attention that reads it."""
