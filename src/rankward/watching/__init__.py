"""Watching: what every loop earns, at all times, from figures that follow its joined log."""
