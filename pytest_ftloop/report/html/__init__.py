"""The HTML report: pure functions from a loop's records to one self-contained page."""
