"""Translation between our values and each vendor's wire. No I/O and no state."""
