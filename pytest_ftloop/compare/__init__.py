"""The gate: how a candidate is compared with the baseline, knowing both noises."""
