"""Automatic optimization: a better policy is searched for on schedule, applied beyond doubt, watched, rolled back."""
