"""Reports: pure functions from records to text. Nothing here trains, reads a log or prints."""
