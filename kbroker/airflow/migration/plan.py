"""From Airflow's KubernetesExecutor to kbroker: what an existing configuration becomes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kbroker.airflow.migration.airflow_cfg import Configured, Given
from kbroker.airflow.migration.carried import Carried
from kbroker.airflow.migration.differences import differences
from kbroker.airflow.migration.executor_list import KBROKER, side_by_side
from kbroker.airflow.migration.option_rules import EARLIER, RULES, Fate, Rule
from kbroker.airflow.options import OPTIONS, SECTION, AdapterSettings
from kbroker.errors import ConfigError
from kbroker.kube_config import KubeConfig, Text, checked
from kbroker.settings import SECTIONS
from kbroker.value import Value

# What executor, launchers and watchers have to agree about.
SHARED = (
    "deployment",
    "broker_prefix",
    "broker_record_ttl",
    "broker_priorities",
    "broker_default_priority",
    "cluster",
    "namespace",
    "create_window",
    "gcp_service_account_keys",
)
_AIRFLOWS, _BEFORE_3 = "kubernetes_executor", "kubernetes"
_RULES = {rule.option: rule for rule in (*RULES, *EARLIER)}
# Airflow takes a sensitive option from a command's output, or from its secrets backend, as well.
_URLS = ("broker_url", "broker_url_cmd", "broker_url_secret")


class Finding(Value, frozen=True):
    """What becomes of one option that is set.

    Attributes:
        section: of Airflow's configuration, or a module of Airflow's local settings.
        option: in it.
        value: as it may be shown; None if it may not.
        source: the file or variable that sets it; "" for Airflow's default.
        fate: in a word; None for an option that nobody knows.
        becomes: what stands for it here.
        why: why, and what to mind.
        decision: what somebody has to decide or do about it; "" for nothing.
    """

    section: str
    option: str
    value: str | None
    source: str
    fate: Fate | None
    becomes: tuple[str, ...] = ()
    why: str = ""
    decision: str = ""


class Plan(Value, frozen=True):
    """What an installation becomes.

    Attributes:
        findings: one for each option that is set, and one for the list of executors.
        executor: the new `[core] executor`.
        options: the section `[kbroker]`, option → text; without the URL of Redis.
        has_url: whether the URL of Redis is set there already.
        settings: "section.key" of launchers and watchers → value; without that URL.
        decisions: what somebody has to decide or do, each with what it is about.
        differences: what will be otherwise than it was, in sentences.
    """

    findings: tuple[Finding, ...]
    executor: str
    options: Mapping[str, str]
    has_url: bool
    settings: Mapping[str, Any]
    decisions: tuple[str, ...]
    differences: tuple[str, ...]


def plan(configured: Configured, hook: Path | None = None) -> Plan:
    """What becomes of this configuration of Airflow.

    Args:
        configured: see `read_airflow`.
        hook: the module with Airflow's `pod_mutation_hook`, if there is one.
    """
    draft = _Draft()
    executor = draft.list_executors(configured.get(("core", "executor")))
    own = _section(configured, SECTION)
    for name, given in own.items():
        draft.keep(name, given)
    airflows = {**_section(configured, _BEFORE_3), **_section(configured, _AIRFLOWS)}
    texts = {name: given.text for name, given in airflows.items()}
    for name, given in airflows.items():
        section = _AIRFLOWS if (_AIRFLOWS, name) in configured else _BEFORE_3
        draft.judge(section, name, given, texts)
    if hook is not None:
        draft.call(hook)
    draft.share()
    return Plan(
        findings=tuple(draft.findings),
        executor=executor,
        options=draft.options,
        has_url=any(name in own for name in _URLS),
        settings=draft.settings,
        decisions=tuple(draft.decisions()),
        differences=tuple(differences(configured, texts, draft.options)),
    )


def _section(configured: Configured, section: str) -> dict[str, Given]:
    return {name: given for (where, name), given in configured.items() if where == section}


class _Draft:
    """A plan while it is made."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.options: dict[str, str] = {}
        self.settings: dict[str, Any] = {"kubernetes.merge": "airflow"}

    def list_executors(self, given: Given | None) -> str:
        """Find out about `[core] executor`; returns its new value."""
        text, source = (given.text, given.source) if given else ("", "")
        new = side_by_side(text)
        self.findings.append(
            Finding(
                "core",
                "executor",
                text,
                source,
                Fate.RENAMED if new.is_new else Fate.SAME,
                (new.text,),
                "Both run side by side, and the first is the default; move DAG by DAG, then put "
                f"{KBROKER} first."
                if new.is_new
                else "",
                new.decision,
            )
        )
        return new.text

    def keep(self, name: str, given: Given) -> None:
        """An option of the section `[kbroker]` as it is."""
        label = f"[{SECTION}] {name}"
        if name in _URLS:
            found = Finding(SECTION, name, None, given.source, Fate.SAME, (label,))
        elif name not in OPTIONS:
            decision = f"kbroker has no such option{_nearest(name, OPTIONS)}"
            found = Finding(SECTION, name, None, given.source, None, decision=decision)
        else:
            problem = self._take_option(name, given.text) if given.text else ""
            found = Finding(
                SECTION, name, given.text, given.source, Fate.SAME, (label,), decision=problem
            )
        self.findings.append(found)

    def judge(self, section: str, name: str, given: Given, texts: Mapping[str, str]) -> None:
        """An option of Airflow's executor."""
        rule = _RULES.get(name)
        if rule is None:
            decision = f"Airflow's executor has no such option{_nearest(name, _RULES)}"
            self.findings.append(
                Finding(section, name, None, given.source, None, decision=decision)
            )
            return
        value = given.text if rule.value_shown else None
        decision = self._carry(rule, given.text, texts)
        why = rule.why
        if section == _BEFORE_3:
            why = f"Airflow 3 does not read the section [{_BEFORE_3}]. {why}".strip()
        self.findings.append(
            Finding(section, name, value, given.source, rule.fate, rule.becomes, why, decision)
        )

    def call(self, hook: Path) -> None:
        """Launchers call the hook."""
        name, setting = "pod_mutation_hook", "kubernetes.pod_mutation_hook"
        self.settings[setting] = f"{hook.stem}.{name}"
        self.findings.append(
            Finding(
                hook.stem,
                name,
                None,
                str(hook),
                Fate.SAME,
                (setting,),
                "Launchers call it with every pod: the module, and what it imports, must be "
                "importable where they run.",
            )
        )

    def share(self) -> None:
        """Tell launchers and watchers what they have to know as well."""
        for name in SHARED:
            if name in self.options:
                self._take_setting(OPTIONS[name].setting, Text(self.options[name]))

    def decisions(self) -> Iterable[str]:
        """What somebody has to decide, each with what it is about."""
        for found in self.findings:
            if found.decision:
                yield f"[{found.section}] {found.option}: {found.decision}"
        if not {"kubernetes.image", "kubernetes.pod_template_file"} & set(self.settings):
            yield (
                "kubernetes.image: no image is named for the pods: give launchers this setting, "
                "or kubernetes.pod_template_file"
            )
        try:
            KubeConfig.from_values(**self.settings)
        except ConfigError as error:
            yield str(error)

    def _carry(self, rule: Rule, text: str, texts: Mapping[str, str]) -> str:
        if not text and not rule.empty_counts:
            return ""
        try:
            carried = rule.carry(text, texts)
        except ConfigError as error:
            return str(error)
        return "; ".join(filter(None, (carried.decision, *self._problems(carried))))

    def _problems(self, carried: Carried) -> Iterable[str]:
        for name, text in carried.options.items():
            if name not in self.options:
                yield self._take_option(name, text)
        for name, value in carried.settings.items():
            yield self._take_setting(name, Text(value) if isinstance(value, str) else value)

    def _take_option(self, name: str, text: str) -> str:
        """Keep it if it is usable; returns what is wrong with it."""
        section, _, key = OPTIONS[name].setting.rpartition(".")
        try:
            checked(
                SECTIONS[section] if section else AdapterSettings, key or name, Text(text), name
            )
        except ConfigError as error:
            return str(error)
        self.options[name] = text
        return ""

    def _take_setting(self, name: str, value: Any) -> str:
        section, _, key = name.partition(".")
        try:
            self.settings[name] = checked(SECTIONS[section], key, value, name)
        except ConfigError as error:
            return str(error)
        return ""


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
