"""Events that leave a loop as files, and events that come in from elsewhere."""
