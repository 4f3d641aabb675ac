"""Everything that runs without configuration: the embedded Redis and the local cluster."""
