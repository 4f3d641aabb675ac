"""What the value of an option of Airflow's KubernetesExecutor becomes, option by option.

Each function takes the option's text, as Airflow's configuration has it, and the texts of all
options that are set, and raises ConfigError where Airflow itself would not accept the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kbroker.errors import ConfigError
from kbroker.pod_failure import CONFIG_ERROR, IMAGE_PULL
from kbroker.settings import CoreSettings, field_bounds

Texts = Mapping[str, str]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_TRUE, _FALSE = ("t", "true", "1"), ("f", "false", "0")
_MOST_RELAUNCHES = int(field_bounds(CoreSettings)["relaunch_limit"].most or 0)


@dataclass(frozen=True, slots=True)
class Carried:
    """What the value of one option becomes.

    Attributes:
        options: option of Airflow's section `[kbroker]` → text.
        settings: "section.key" of launchers and watchers → value.
        decision: what somebody has to decide or do about it; "" for nothing.
    """

    options: Texts = field(default_factory=lambda: _NOTHING)
    settings: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    decision: str = ""


Carry = Callable[[str, Texts], Carried]


def flag(text: str) -> bool:
    """A truth value as Airflow reads it.

    Raises:
        ConfigError: it is none.
    """
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise ConfigError(f"{text!r} is neither True nor False")


def number(text: str) -> int:
    """A whole number.

    Raises:
        ConfigError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a whole number") from None


def to_option(name: str, read: Callable[[str], Any] = str) -> Carry:
    """An option of the section `[kbroker]`."""
    return lambda text, _: Carried(options={name: str(read(text))})


def to_setting(name: str) -> Carry:
    """A setting of launchers and watchers."""
    return lambda text, _: Carried(settings={name: text})


def decide(decision: str) -> Carry:
    """Somebody has to decide, whatever the value is."""
    return lambda _text, _: Carried(decision=decision)


def namespace(text: str, _given: Texts) -> Carried:
    """`namespace`: for all processes."""
    return Carried({"namespace": text}, {"kubernetes.namespace": text})


def image(text: str, given: Texts) -> Carried:
    """`worker_container_repository`."""
    tag = given.get("worker_container_tag")
    if tag:
        return Carried(settings={"kubernetes.image": f"{text}:{tag}"})
    return Carried(decision="Airflow ignores it without worker_container_tag")


def image_tag(_text: str, given: Texts) -> Carried:
    """`worker_container_tag`: part of the image already."""
    if given.get("worker_container_repository"):
        return Carried()
    return Carried(decision="Airflow ignores it without worker_container_repository")


def fatal_reasons(text: str, _given: Texts) -> Carried:
    """`worker_pod_pending_fatal_container_state_reasons`."""
    named = {reason.strip() for reason in text.split(",") if reason.strip()}
    unknown = sorted(named - IMAGE_PULL - CONFIG_ERROR)
    if not named:
        return Carried(
            decision="there are fatal reasons here; raise watcher.fatal_waiting_grace if pods may "
            "recover from them later"
        )
    if not unknown:
        return Carried()
    return Carried(
        decision=f"{', '.join(unknown)} is not fatal here: such a pod is given up after "
        "watcher.pending_timeout; lower that if it is too long"
    )


def concurrency(text: str, given: Texts) -> Carried:
    """`pod_creation_max_concurrency`: has no effect without `async_pod_creation`."""
    most = number(text)
    if most > 0 and flag(given.get("async_pod_creation") or "False"):
        return Carried(settings={"kubernetes.pool_size": most})
    return Carried()


def many_namespaces(text: str, given: Texts) -> Carried:
    """`multi_namespace_mode`."""
    if not flag(text):
        return Carried()
    names = given.get("multi_namespace_mode_namespace_list", "").split(",")
    listed = ", ".join(name.strip() for name in names if name.strip())
    return Carried(
        decision=f"for {listed or 'each namespace that a task names'}: run kbroker watcher "
        "--namespace NAME, and bind the roles of config/kubernetes there to the accounts of "
        "launchers and watchers"
    )


def in_cluster(text: str, given: Texts) -> Carried:
    """`in_cluster`."""
    if flag(text) or given.get("config_file"):
        return Carried()
    return Carried(
        decision="give launchers and watchers the kubeconfig that Airflow found by itself"
    )


def outside(name: str) -> Carry:
    """A setting about the kubeconfig, which Airflow reads only outside of the cluster."""

    def carry(text: str, given: Texts) -> Carried:
        if flag(given.get("in_cluster") or "True"):
            return Carried()
        return Carried(settings={name: text})

    return carry


def request_args(text: str, _given: Texts) -> Carried:
    """`kube_client_request_args`; only the arguments' names may be shown."""
    arguments = _object(text)
    limit = arguments.pop("_request_timeout", None)
    parts = [part for part in (limit if isinstance(limit, list) else [limit]) if part is not None]
    if not all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts):
        raise ConfigError("its _request_timeout is no number of seconds")
    others = ", ".join(sorted(arguments))
    return Carried(
        settings={"kubernetes.request_timeout": float(sum(parts))} if parts else {},
        decision=f"requests of launchers and watchers take no {others}" if others else "",
    )


def delete_options(text: str, _given: Texts) -> Carried:
    """`delete_option_kwargs`."""
    options = _object(text)
    decisions = []
    if (grace := options.pop("grace_period_seconds", None)) is not None:
        decisions.append(f"put terminationGracePeriodSeconds: {grace!r} into the pod template")
    if options:
        decisions.append(f"launchers delete without {', '.join(sorted(options))}")
    return Carried(decision="; ".join(decisions))


def verify(text: str, _given: Texts) -> Carried:
    """`verify_ssl`."""
    if flag(text):
        return Carried()
    return Carried(
        decision="give launchers and watchers a kubeconfig with the certificate-authority; who "
        "must do without says insecure-skip-tls-verify: true there"
    )


def relaunches(text: str, _given: Texts) -> Carried:
    """`pod_launch_failure_retries`; -1 is for ever."""
    times = number(text)
    if 0 <= times <= _MOST_RELAUNCHES:
        return Carried({"relaunch_limit": str(times)})
    return Carried(
        {"relaunch_limit": str(_MOST_RELAUNCHES)},
        decision=f"{_MOST_RELAUNCHES} is the most: do you want so many?",
    )


def not_relaunched(text: str, _given: Texts) -> Carried:
    """`pod_launch_failure_excluded_container_reasons`."""
    if text == "Error":
        return Carried()
    return Carried(
        decision="what had started is never launched again by itself, whatever its reason: does "
        "the task have retries?"
    )


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError("it is not a JSON object")
    return value
