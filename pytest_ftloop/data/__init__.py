"""Rows to examples, and their fingerprints."""
