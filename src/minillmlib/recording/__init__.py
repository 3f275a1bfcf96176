"""Records exchanges with servers to files, plays them back, and keeps answers to ask them once."""
