"""Tests of the doors: the contract over HTTP, and the pages beside it."""
