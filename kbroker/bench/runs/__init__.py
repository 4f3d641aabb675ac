"""The runs: each starts its own processes and measures one or more figures."""
