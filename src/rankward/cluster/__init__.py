"""Many machines: nodes on NATS JetStream, and a whole cluster on one machine to try it."""
