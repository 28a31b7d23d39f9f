"""Judge a candidate: by the thresholds of its gates, and against the committed log."""
