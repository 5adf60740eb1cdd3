"""Versions of models: kept, listed, served, rolled back to."""
