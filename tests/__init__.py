"""All tests. They mirror the rooms of `src/rankward`."""
