"""The wires of provider batches: requests that a vendor answers within a day, at half price."""
