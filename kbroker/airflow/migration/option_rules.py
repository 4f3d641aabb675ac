"""What becomes of each option of Airflow's KubernetesExecutor.

One rule for each option of the section `[kubernetes_executor]` as the cncf-kubernetes provider
10.25 has it, and for those of earlier ones. `kbroker airflow check` and `docs/airflow.md` are
made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kbroker.airflow.migration import carried
from kbroker.airflow.migration.carried import Carried, Carry


class Fate(StrEnum):
    """What becomes of an option."""

    SAME = "same"
    RENAMED = "renamed"
    OBSOLETE = "obsolete"


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one option.

    Attributes:
        option: its name in Airflow's section.
        fate: in a word.
        becomes: what stands for it here: `[kbroker] option` in Airflow's configuration,
            "section.key" in that of launchers and watchers; most often one.
        why: why, and what to mind; whole sentences.
        carry: its text, and those of all options that are set → what that becomes.
        value_shown: whether its value may be shown.
        empty_counts: whether an empty text says something.
    """

    option: str
    fate: Fate
    becomes: tuple[str, ...]
    why: str
    carry: Carry = lambda _text, _given: Carried()
    value_shown: bool = True
    empty_counts: bool = False


_LAUNCHERS_RETRY = "launcher.retry_base", "launcher.retry_max", "kubernetes.retry_budget"
_NO_KEEPALIVE = (
    "A request that is not answered ends after `kubernetes.request_timeout`, a silent watch after "
    "`watcher.silent_timeout`."
)
_CLIENT = (
    "Launchers and watchers read a kubeconfig, credential plug-ins (`exec`) included, or their "
    "pod's own service account."
)
_NEEDS_CREDENTIALS = (
    "give launchers and watchers a kubeconfig, with a credential plug-in (exec) if need be, or a "
    "service account"
)

RULES: tuple[Rule, ...] = (
    Rule(
        "api_client_retry_configuration",
        Fate.OBSOLETE,
        _LAUNCHERS_RETRY,
        "Launchers repeat what failed for a while with growing waits, then set the launch aside "
        "and come back to it.",
        carried.decide("set launcher.retry_* if their defaults do not suit you"),
        value_shown=False,
    ),
    Rule(
        "logs_task_metadata",
        Fate.OBSOLETE,
        (),
        "What kbroker logs names the task or its pod; the pod's labels and annotations name the "
        "task.",
    ),
    Rule(
        "running_pod_log_lines",
        Fate.RENAMED,
        ("[kbroker] log_lines",),
        "The pod's log is fetched by a launcher.",
        carried.to_option("log_lines", carried.number),
    ),
    Rule(
        "pod_template_file",
        Fate.SAME,
        ("kubernetes.pod_template_file",),
        "Of the launchers: the file must be where they run. A task may name another one.",
        carried.to_setting("kubernetes.pod_template_file"),
    ),
    Rule(
        "worker_container_repository",
        Fate.RENAMED,
        ("kubernetes.image",),
        "Of the launchers: `repository:tag`.",
        carried.image,
    ),
    Rule(
        "worker_container_tag",
        Fate.RENAMED,
        ("kubernetes.image",),
        "Of the launchers: `repository:tag`.",
        carried.image_tag,
    ),
    Rule(
        "namespace",
        Fate.SAME,
        ("[kbroker] namespace", "kubernetes.namespace"),
        "The executor says where a pod goes; launchers need their role there, and a watcher "
        "watches it.",
        carried.namespace,
    ),
    Rule(
        "delete_worker_pods",
        Fate.SAME,
        ("[kbroker] delete_worker_pods",),
        "A pod goes once Airflow's database has its task's end.",
        carried.to_option("delete_worker_pods", carried.flag),
    ),
    Rule(
        "delete_worker_pods_on_failure",
        Fate.SAME,
        ("[kbroker] delete_worker_pods_on_failure",),
        "The default is `true` here, and was `False`.",
        carried.to_option("delete_worker_pods_on_failure", carried.flag),
    ),
    Rule(
        "worker_pod_pending_fatal_container_state_reasons",
        Fate.OBSOLETE,
        ("watcher.fatal_waiting_grace",),
        "The watcher knows the fatal reasons; a pod that waits for one of them for so long is "
        "stopped, and launched again.",
        carried.fatal_reasons,
        empty_counts=True,
    ),
    Rule(
        "worker_pods_creation_batch_size",
        Fate.OBSOLETE,
        ("[kbroker] publish_batch", "launcher.max_create_rate"),
        "The scheduler's loop creates no pods: it publishes up to `publish_batch` launches at "
        "once. Launchers create them, as fast as the API server takes them or "
        "`launcher.max_create_rate` allows.",
    ),
    Rule(
        "async_pod_creation",
        Fate.OBSOLETE,
        (),
        "Launchers always create pods concurrently.",
    ),
    Rule(
        "pod_creation_max_concurrency",
        Fate.RENAMED,
        ("kubernetes.pool_size",),
        "Of each launcher process.",
        carried.concurrency,
    ),
    Rule(
        "multi_namespace_mode",
        Fate.OBSOLETE,
        (),
        "A task may always name a namespace. Each needs a watcher, and the roles of launchers and "
        "watchers: no cluster role.",
        carried.many_namespaces,
    ),
    Rule(
        "multi_namespace_mode_namespace_list",
        Fate.OBSOLETE,
        (),
        "One watcher for each: `kbroker watcher --namespace NAME`.",
    ),
    Rule(
        "in_cluster",
        Fate.OBSOLETE,
        (),
        "Launchers and watchers use a kubeconfig where there is one, else their pod's own service "
        "account. The scheduler needs neither.",
        carried.in_cluster,
    ),
    Rule(
        "cluster_context",
        Fate.RENAMED,
        ("kubernetes.context",),
        "Of launchers and watchers; Airflow reads it with `in_cluster = False` only.",
        carried.outside("kubernetes.context"),
    ),
    Rule(
        "config_file",
        Fate.RENAMED,
        ("kubernetes.kubeconfig",),
        "Of launchers and watchers; Airflow reads it with `in_cluster = False` only.",
        carried.outside("kubernetes.kubeconfig"),
    ),
    Rule("client_factory", Fate.OBSOLETE, (), _CLIENT, carried.decide(_NEEDS_CREDENTIALS)),
    Rule(
        "async_client_factory",
        Fate.OBSOLETE,
        (),
        _CLIENT,
        carried.decide(_NEEDS_CREDENTIALS),
    ),
    Rule(
        "kube_client_request_args",
        Fate.RENAMED,
        ("kubernetes.request_timeout",),
        "Of its arguments, `_request_timeout` alone: in seconds, connecting included.",
        carried.request_args,
        value_shown=False,
    ),
    Rule(
        "delete_option_kwargs",
        Fate.OBSOLETE,
        (),
        "A pod is deleted with its own grace period: `terminationGracePeriodSeconds` of the pod "
        "template.",
        carried.delete_options,
        value_shown=False,
    ),
    Rule("enable_tcp_keepalive", Fate.OBSOLETE, (), _NO_KEEPALIVE),
    Rule("tcp_keep_idle", Fate.OBSOLETE, (), _NO_KEEPALIVE),
    Rule("tcp_keep_intvl", Fate.OBSOLETE, (), _NO_KEEPALIVE),
    Rule("tcp_keep_cnt", Fate.OBSOLETE, (), _NO_KEEPALIVE),
    Rule(
        "verify_ssl",
        Fate.OBSOLETE,
        (),
        "The API server is always verified, unless a kubeconfig says `insecure-skip-tls-verify`.",
        carried.verify,
    ),
    Rule(
        "ssl_ca_cert",
        Fate.OBSOLETE,
        (),
        "`certificate-authority` of the kubeconfig; in a pod, the service account's.",
        carried.decide("put it into the launchers' and watchers' kubeconfig"),
    ),
    Rule(
        "task_publish_max_retries",
        Fate.OBSOLETE,
        ("[kbroker] launch_timeout",),
        "A launch that a quota refuses waits, and says so, until it is too old to be launched.",
    ),
    Rule(
        "pod_launch_failure_retries",
        Fate.RENAMED,
        ("[kbroker] relaunch_limit",),
        "The default is 3 here, and was 1. `-1` cannot be said.",
        carried.relaunches,
    ),
    Rule(
        "pod_launch_failure_excluded_container_reasons",
        Fate.OBSOLETE,
        (),
        "A pod is launched again only when it is proven that its container never started; what "
        "had started is the task's own retries' to repeat.",
        carried.not_relaunched,
        empty_counts=True,
    ),
)

_QUEUED = "Airflow 3 itself watches over queued tasks: `[scheduler] task_queued_timeout`."
_OLD = "Earlier providers had it; the present one ignores it."
# Options of earlier providers, which may still stand in a file.
EARLIER: tuple[Rule, ...] = (
    Rule(
        "worker_pods_pending_timeout",
        Fate.OBSOLETE,
        ("watcher.pending_timeout",),
        f"{_QUEUED} The watcher gives a pod up that has not started by then.",
    ),
    Rule("worker_pods_pending_timeout_check_interval", Fate.OBSOLETE, (), _QUEUED),
    Rule("worker_pods_pending_timeout_batch_size", Fate.OBSOLETE, (), _QUEUED),
    Rule("worker_pods_queued_check_interval", Fate.OBSOLETE, (), _OLD),
)
