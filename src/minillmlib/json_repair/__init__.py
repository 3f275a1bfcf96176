"""Broken JSON text to a value; knows nothing of models."""
