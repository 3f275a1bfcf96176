"""The frozen values that everything passes around."""
