"""From the event log to the joined log: every interaction with what was observed of it."""
