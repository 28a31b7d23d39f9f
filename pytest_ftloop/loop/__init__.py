"""Turn the cycle until it stops."""
