"""The wires: requests, answers, streams and errors, without the facts of single services."""
