"""Soak: real tasks on real processes while faults are injected, and an audit of what came of it.

`conduct` in `soak` is the whole of it: a stack of processes, schedulers that want tasks, a seeded
plan of faults, and at the end a comparison of what the tasks wrote, what the API server and Redis
hold, and what the schedulers were told.
"""
