"""Tests of automatic optimization."""
