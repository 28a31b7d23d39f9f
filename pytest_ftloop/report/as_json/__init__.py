"""What `--json` prints: one list, one item per loop, in the shapes of `shapes`."""
