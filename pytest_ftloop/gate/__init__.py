"""A committed log and a candidate to a verdict. Trains nothing."""
