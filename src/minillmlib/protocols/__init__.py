"""Wires: how values become a JSON body and how an answer becomes values. No I/O."""
