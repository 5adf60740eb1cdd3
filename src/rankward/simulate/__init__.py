"""Worlds whose true rewards are known, and the traffic they send: for the demo, tests and benchmarks."""
