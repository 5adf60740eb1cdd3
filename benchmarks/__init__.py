"""What the service costs and gains, measured: run by hand, never asserted in tests."""
