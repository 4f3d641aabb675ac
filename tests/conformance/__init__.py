"""What kbroker relies on of a Kubernetes API server, and kbroker itself, proven on any cluster.

    make conformance                                         the local cluster
    KUBECONFIG=/path make conformance                        any other cluster, as its administrator
    KUBECONFIG=/path KBROKER_NO_KUBELET=1 make conformance   a bare API server and its etcd

The cases do not know which cluster they talk to. They need an administrator's
kubeconfig, Kubernetes 1.30 or later and RBAC, and work in namespaces called
`kbroker-conformance-…`, which they make and remove.

Pods name a scheduler that no cluster has, so that nothing starts them: the suite
itself binds them to a node that does not exist and writes their status, as a
kubelet would. It also makes what controllers otherwise make: the service account
`default`, a quota's status. So all that is needed is an API server, but for the cases
marked `kubelet`: their containers really run, on whatever nodes the cluster has.
`KBROKER_NO_KUBELET=1` leaves these out.
"""
