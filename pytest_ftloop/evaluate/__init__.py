"""An output to pass or fail, and the evaluator that measures examples (torch)."""
