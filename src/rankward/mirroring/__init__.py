"""Copies of the joined log, line by line, in a folder or a store of the operator's own."""
