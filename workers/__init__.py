"""Entry points of the worker processes: launcher and watcher."""
