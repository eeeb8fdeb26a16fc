"""The servers of the local stack: how each is configured, started and known to be ready."""
