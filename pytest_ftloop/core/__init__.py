"""What every room uses: records, errors, metrics, runs, noise, chain, functions, files, git."""
