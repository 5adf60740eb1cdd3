"""The command line, one module for each noun: what `rankward` does in a terminal."""

from rankward.cli.app import app, main

__all__ = ["app", "main"]
