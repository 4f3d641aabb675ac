"""Measures kbroker against what the API server itself can do, side by side in one run."""
