"""The archive of the joined log."""
