"""The options of Airflow's section `[kbroker]`: one table for reading and for documenting them.

Most are settings of kbroker under a name of their own; what they mean and allow, and their
defaults, stand in `kbroker.settings` alone. Neither Airflow nor Redis is needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Self

from kbroker.errors import ConfigError
from kbroker.kube_config import ENV_PREFIX, KubeConfig, Text, as_text, checked
from kbroker.settings import SECTIONS, Bounds, setting
from kbroker.settings_file import meaning
from kbroker.value import Value

SECTION = "kbroker"
ARGUMENT, SECRET = "argument", "secret"

# Airflow counts the slots and names the process.
_AIRFLOWS_OWN = ("core.executor_id", "core.parallelism")
# What the executor reads of each section; `core` is all its own. The prefix of the options' names
# says what they are about where the bare name does not.
_READ = {
    "broker": (
        "broker_",
        ("url", "prefix", "scheduler_timeout", "record_ttl", "priorities", "default_priority"),
    ),
    "kubernetes": (
        "",
        (
            "cluster",
            "namespace",
            "create_window",
            "gcp_service_account_keys",
            "delete_worker_pods",
            "delete_worker_pods_on_failure",
        ),
    ),
    "watcher": ("watcher_", ("silent_timeout",)),
}
_KINDS = {bool: "boolean", int: "integer", float: "float"}


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What only the executor in Airflow knows."""

    workload_delivery: str = setting(
        ARGUMENT,
        "How the workload, token included, reaches the pod: on its command line, or in a Secret "
        "that lives as long as the pod.",
        choices=(ARGUMENT, SECRET),
    )
    log_lines: int = setting(100, "Lines shown from the end of a running task's pod log.", least=1)
    check_interval: float = setting(
        5.0,
        "How often launches are compared with Airflow's database: a task that was cleared, marked "
        "or queued anew is not launched.",
        unit="s",
        least=0.05,
    )
    stop_grace: float = setting(
        60.0,
        "How long a container whose task is no longer wanted may take to notice by itself before "
        "its pod is stopped.",
        unit="s",
        least=0,
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: in Airflow's section `[kbroker]`.
        setting: the setting of kbroker that it stands for, "section.key"; "" for none.
        default: as Airflow's configuration says it.
        kind: type of the values, as Airflow names it.
        bounds: what it means, and which values it may take.
        sensitive: whether it may hold a password.
    """

    name: str
    setting: str
    default: str
    kind: str
    bounds: Bounds
    sensitive: bool = False

    @property
    def description(self) -> str:
        """What it means, for a reader of Airflow's configuration."""
        text = meaning(self.bounds)
        if not self.setting:
            return text
        variable = ENV_PREFIX + self.setting.upper().replace(".", "__")
        return (
            f"{text}\nAt its default, kbroker's own configuration decides: {self.setting} in the "
            f"file that $KBROKER_CONFIG names, or ${variable}."
        )

    @property
    def label(self) -> str:
        """How a message to the user names it."""
        return f"[{SECTION}] {self.name}"


def _options() -> Iterator[Option]:
    for section, settings in SECTIONS.items():
        own = tuple(f.name for f in fields(settings)) if section == "core" else ()
        prefix, keys = _READ.get(section, ("", own))
        for f in fields(settings):
            name = f"{section}.{f.name}"
            if f.name in keys and name not in _AIRFLOWS_OWN:
                yield _option(prefix + f.name, name, f)
    for f in fields(AdapterSettings):
        yield _option(f.name, "", f)


def _option(name: str, setting_name: str, f: Any) -> Option:
    return Option(
        name,
        setting_name,
        as_text(f.default),
        _KINDS.get(type(f.default), "string"),
        f.metadata["bounds"],
        sensitive=setting_name == "broker.url",
    )


OPTIONS: Mapping[str, Option] = MappingProxyType({o.name: o for o in _options()})
_BY_SETTING = {option.setting: option for option in OPTIONS.values() if option.setting}


class AirflowOptions(Value, frozen=True):
    """What Airflow's configuration says about kbroker.

    Attributes:
        config: the configuration of kbroker that follows from it.
        workload_delivery: `ARGUMENT` or `SECRET`.
        log_lines: lines shown of a running task's log, at least 1.
        check_interval: seconds between two comparisons with Airflow's database.
        stop_grace: seconds that a container whose task is not wanted has to leave by itself.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"config"})  # its URL may hold a password

    config: KubeConfig
    workload_delivery: str
    log_lines: int
    check_interval: float
    stop_grace: float

    @classmethod
    def read(cls, get: Callable[[str], str | None], *, executor_id: str = "") -> Self:
        """Read the options.

        What is empty, or says just its default, is left to kbroker's own configuration:
        the file that `KBROKER_CONFIG` names, and the environment.

        Args:
            get: an option's name → its text in Airflow's configuration, None if unset.
            executor_id: names this process among the executors; "" for a fresh name.

        Raises:
            ConfigError: a value is not usable, or no Redis is named anywhere.
        """
        given = {name: text for name in OPTIONS if (text := _given(name, get(name))) is not None}
        overrides: dict[str, Any] = dict(zip(_AIRFLOWS_OWN, (executor_id, 0), strict=True))
        for name, text in given.items():
            if OPTIONS[name].setting:
                overrides[OPTIONS[name].setting] = text
        config = KubeConfig.load(overrides=overrides, override_source=_source)
        if not config.broker.url:
            raise ConfigError(
                f"no Redis is configured: set {OPTIONS['broker_url'].label} in Airflow's "
                "configuration, or KBROKER__BROKER__URL, to redis://host:6379"
            )
        return cls(config, **{f.name: _own(f, given) for f in fields(AdapterSettings)})


def _given(name: str, text: str | None) -> str | None:
    text = (text or "").strip()
    return text if text not in ("", OPTIONS[name].default) else None


def _own(f: Any, given: Mapping[str, str]) -> Any:
    if f.name not in given:
        return f.default
    return checked(AdapterSettings, f.name, Text(given[f.name]), OPTIONS[f.name].label)


def _source(name: str) -> str:
    return _BY_SETTING[name].label if name in _BY_SETTING else "Airflow"
