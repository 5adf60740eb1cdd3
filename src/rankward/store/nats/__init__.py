"""The store's second home: what happens is written to NATS JetStream, and read from a replica in a data folder."""
