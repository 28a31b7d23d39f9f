"""A loop: turns the cycle (`cycle`) until it stops, then judges its best iteration (`loop`)."""
