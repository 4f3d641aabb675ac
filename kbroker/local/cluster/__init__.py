"""The local cluster: a Kubernetes API server for development that runs pods as local processes.

It isolates nothing: a container is a process of the user who started the cluster.
What it honours is the API: uids, resource versions, watches and their bookmarks,
410 after compaction, selectors, paging, preconditions, two-step deletion, logs.
"""
