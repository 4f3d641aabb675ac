"""Several schedulers at once."""
