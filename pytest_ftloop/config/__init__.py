"""A loop file, or live objects, to one checked `LoopConfig`."""
