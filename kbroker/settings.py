"""Every setting of kbroker: type, default, unit, meaning and bounds, in one table.

Loading, validation and the documented file `config/kbroker.toml` come from here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a setting means and which values it may take.

    Attributes:
        meaning: one sentence.
        unit: of a number; "" for none.
        least: smallest value of a number.
        most: largest value of a number.
        pattern: regular expression that a string must match whole.
        pattern_means: the pattern in words.
        choices: the only values that a string may take.
    """

    meaning: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    pattern: str = ""
    pattern_means: str = ""
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """What is not allowed about a value of the right type; None if nothing."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if self.choices and value not in self.choices:
            return "must be one of " + ", ".join(repr(choice) for choice in self.choices)
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}{self.unit and ' ' + self.unit}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:g}{self.unit and ' ' + self.unit}"
        if self.pattern and not re.fullmatch(self.pattern, value):
            return f"must be {self.pattern_means}"
        return None


def setting(default: T, meaning: str, **bounds: Any) -> T:
    """A dataclass field that carries its `Bounds`."""
    return field(default=default, metadata={"bounds": Bounds(meaning, **bounds)})


_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DNS_MEANS = "a DNS label: lower case letters, digits and '-', at most 63 characters"


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """The executor."""

    deployment: str = setting(
        "kbroker",
        "Id of this installation: stable across restarts, shared by all its executors.",
        pattern=r".{1,63}",
        pattern_means="from 1 to 63 characters",
    )
    executor_id: str = setting(
        "", "Id of the executor process; empty: host name and random digits."
    )
    parallelism: int = setting(0, "Tasks that run at once; 0 for no limit.", least=0)
    executor_lease: float = setting(
        15.0, "How long an executor that fell silent still owns its tasks.", unit="s", least=0.3
    )
    reconcile_interval: float = setting(
        30.0, "How often wanted and launched are compared.", unit="s", least=0.05
    )
    relaunch_limit: int = setting(
        3, "Launches after the first for failures before the container started.", least=0, most=100
    )
    launch_timeout: float = setting(
        3600.0, "A task not launched by then fails; 0 for never.", unit="s", least=0
    )
    publish_batch: int = setting(1000, "Launches published by one heartbeat.", least=1)
    event_batch: int = setting(1000, "Events applied by one sync.", least=1)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Redis and the queues."""

    url: str = setting(
        "", "redis:// or rediss:// URL; empty: commands that can start an embedded one do."
    )
    prefix: str = setting(
        "{kbroker}:",
        "In front of every key; the hash tag keeps all keys in one slot of a Redis cluster.",
        pattern=r"[^{}]*\{[^{}]+\}.*",
        pattern_means="a text with a {hash tag}",
    )
    socket_timeout: float = setting(
        5.0, "Longest wait of launchers and watchers for Redis.", unit="s", least=0.1
    )
    scheduler_timeout: float = setting(
        0.5,
        "Longest wait of the executor for an answer of Redis; a whole heartbeat waits at most 0.25 "
        "seconds longer.",
        unit="s",
        least=0.05,
    )
    redelivery_after: float = setting(
        15.0, "A message of a silent launcher goes to another one after this.", unit="s", least=1
    )
    max_deliveries: int = setting(3, "The next delivery of a message makes it dead.", least=1)
    batch_size: int = setting(
        25, "Waiting launches handed to one call of a launcher.", least=1, most=1000
    )
    record_ttl: float = setting(
        86400.0, "How long the record of a finished launch is kept.", unit="s", least=60
    )
    priorities: tuple[str, ...] = setting(
        ("high", "normal", "low"), "Launch queues, the most urgent first."
    )
    default_priority: str = setting("normal", "The queue of a task that names none of them.")


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """The cluster and the pods."""

    cluster: str = setting(
        "default", "Name of the cluster.", pattern=_DNS_LABEL, pattern_means=_DNS_MEANS
    )
    namespace: str = setting(
        "default", "Where pods are created.", pattern=_DNS_LABEL, pattern_means=_DNS_MEANS
    )
    kubeconfig: str = setting(
        "", "Path of a kubeconfig; empty: $KUBECONFIG, ~/.kube/config or the pod's own account."
    )
    context: str = setting("", "Context of the kubeconfig; empty: its current one.")
    create_window: float = setting(
        30.0,
        "A pod is created within this time after its grant, or not at all.",
        unit="s",
        least=0.1,
    )
    request_timeout: float = setting(
        10.0, "Longest wait for one answer of the API server.", unit="s", least=0.1
    )
    retry_budget: float = setting(
        20.0,
        "Longest time one launch is retried before it is parked; at most the create window.",
        unit="s",
        least=0,
    )
    pool_size: int = setting(64, "Connections of one launcher process.", least=1)
    pod_template_file: str = setting(
        "", "Path of the pod template (YAML); empty: the built-in one."
    )
    image: str = setting("", "Image of the base container; empty: the template's.")
    image_pull_policy: str = setting(
        "",
        "Pull policy of the base container; empty: the template's.",
        choices=("", "Always", "IfNotPresent", "Never"),
    )
    service_account_name: str = setting("", "Service account of the pods; empty: the template's.")
    gcp_service_account_keys: str = setting(
        "",
        "Keys that launchers put into Secrets, name=path,…; the files are read where they run.",
    )
    merge: str = setting(
        "strategic",
        "How a pod_override is merged into the pod.",
        choices=("strategic", "airflow"),
    )
    pod_mutation_hook: str = setting(
        "",
        "Function package.module.function that launchers call with every pod, a V1Pod, for it to "
        "change; empty: none.",
    )
    delete_worker_pods: bool = setting(True, "Delete pods whose task has finished.")
    delete_worker_pods_on_failure: bool = setting(True, "Delete them also when it has failed.")
    active_deadline: float = setting(
        0.0, "A task running for longer is ended; 0 for no limit.", unit="s", least=0
    )


@dataclass(frozen=True, slots=True)
class LauncherSettings:
    """Launcher processes."""

    retry_base: float = setting(0.1, "First wait before a request is repeated.", unit="s", least=0)
    retry_max: float = setting(5.0, "Longest wait before a request is repeated.", unit="s", least=0)
    retry_after_max: float = setting(
        30.0, "Longest obeyed Retry-After of the API server.", unit="s", least=0
    )
    max_create_rate: float = setting(
        0.0,
        "Pods that all launchers of a cluster together create per second at most; 0 for no limit.",
        least=0,
    )
    park_base: float = setting(1.0, "First wait of a parked launch.", unit="s", least=0.05)
    park_max: float = setting(60.0, "Longest wait of a parked launch.", unit="s", least=0.05)
    park_lease: float = setting(
        60.0, "A parked item that is worked on falls due again after this.", unit="s", least=1
    )
    drain_interval: float = setting(
        0.5, "How often parked items are looked for.", unit="s", least=0.05
    )


@dataclass(frozen=True, slots=True)
class WatcherSettings:
    """The watcher."""

    lease: float = setting(15.0, "A standby takes over within this time.", unit="s", least=0.3)
    resync_interval: float = setting(
        600.0, "How often everything is listed anew.", unit="s", least=1
    )
    watch_timeout: float = setting(
        290.0, "The server ends an idle watch after this.", unit="s", least=1
    )
    silent_timeout: float = setting(
        90.0, "A connection without a byte for this long is dead.", unit="s", least=0.5
    )
    page_size: int = setting(500, "Pods in one page of a list.", least=1)
    check_interval: float = setting(
        5.0, "How often pods that have not started are judged.", unit="s", least=0.05
    )
    pending_timeout: float = setting(
        600.0, "A pod that has not started by then is given up.", unit="s", least=0.1
    )
    fatal_waiting_grace: float = setting(
        30.0, "How long a fatal waiting reason may persist.", unit="s", least=0
    )
    orphan_after: float = setting(
        86400.0, "Finished pods without an owner are removed after this.", unit="s", least=1
    )
    backoff_base: float = setting(0.5, "First wait before a watch is resumed.", unit="s", least=0)
    backoff_max: float = setting(30.0, "Longest wait before a watch is resumed.", unit="s", least=0)


SECTIONS: Mapping[str, type[Any]] = {
    "core": CoreSettings,
    "broker": BrokerSettings,
    "kubernetes": KubernetesSettings,
    "launcher": LauncherSettings,
    "watcher": WatcherSettings,
}


def bounds_of(section: str) -> dict[str, Bounds]:
    """Key → bounds of one section, in the order of the file."""
    return field_bounds(SECTIONS[section])


def field_bounds(settings: type[Any]) -> dict[str, Bounds]:
    """Key → bounds of a dataclass whose fields were made by `setting`."""
    return {f.name: f.metadata["bounds"] for f in fields(settings)}
