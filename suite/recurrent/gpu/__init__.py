"""Hand-written cells on a GPU."""
