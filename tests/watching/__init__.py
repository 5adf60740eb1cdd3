"""Watching: figures of what loops earn."""
