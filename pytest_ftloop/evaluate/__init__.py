"""Measure examples with a model (`evaluator`, torch), and decide which pass (`scorers`)."""
