"""Challengers: policies that learn from a loop's log beside the one that serves, compared with it at all times."""
