"""The wire shapes of the contract, and their translation into our own words: done here and nowhere else."""
