"""Many calls at once: a run over any number of items, as wide as the server allows."""
