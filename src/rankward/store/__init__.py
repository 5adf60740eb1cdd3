"""Where things rest: the ports, and the backends that keep their promises."""
