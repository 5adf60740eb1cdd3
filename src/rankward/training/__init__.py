"""From the joined log to models: a fold that learns every event once."""
