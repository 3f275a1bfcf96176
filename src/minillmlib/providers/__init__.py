"""Services: each is the facts of one vendor over a protocol."""
