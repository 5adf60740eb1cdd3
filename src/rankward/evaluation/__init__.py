"""Evaluation: what another policy would have earned, judged from the joined log."""
