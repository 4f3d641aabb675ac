"""From the KubernetesExecutor's configuration to kbroker's, without Airflow."""

from __future__ import annotations

import configparser
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kbroker.airflow.migration.airflow_cfg import (
    Configured,
    Given,
    default_path,
    mutation_hook,
    read_airflow,
)
from kbroker.airflow.migration.executor_list import KBROKER, side_by_side
from kbroker.airflow.migration.new_files import (
    EXAMPLE_URL,
    airflow_sections,
    environment,
    kbroker_toml,
)
from kbroker.airflow.migration.option_rules import EARLIER, RULES, Fate
from kbroker.airflow.migration.plan import SHARED, Plan, plan
from kbroker.airflow.options import OPTIONS, AirflowOptions
from kbroker.cli.main import main
from kbroker.errors import UsageError
from kbroker.kube_config import KubeConfig

IMAGE = {"worker_container_repository": "apache/airflow", "worker_container_tag": "3.3.2"}


def configured(section: str = "kubernetes_executor", **texts: str) -> Configured:
    return {(section, name): Given(text, "airflow.cfg") for name, text in texts.items()}


def planned(**texts: str) -> Plan:
    """The plan for these options, with an image if they name none."""
    return plan(configured(**(IMAGE | texts)))


# The rules.


@pytest.mark.parametrize("rule", [*RULES, *EARLIER], ids=lambda rule: rule.option)
def test_a_rule_names_what_there_is(rule: Any) -> None:
    for name in rule.becomes:
        section, _, option = name.rpartition(" ")
        assert (option in OPTIONS) if section == "[kbroker]" else (name in KubeConfig().values())
    if rule.fate is not Fate.OBSOLETE:
        assert rule.becomes, "a reader has to know what it is called now"
    if rule.fate is Fate.SAME:
        assert all(name.replace(".", " ").split()[-1] == rule.option for name in rule.becomes)
    assert rule.why.endswith("."), "a reader has to know why, or what to mind"


def test_there_is_one_rule_for_an_option() -> None:
    names = [rule.option for rule in (*RULES, *EARLIER)]
    assert len(names) == len(set(names))


# What the values become: options → new options of [kbroker], new settings, a decision.
OUTSIDE = {"in_cluster": "False"}
BECOME: list[tuple[dict[str, str], dict[str, str], dict[str, Any], str]] = [
    ({"running_pod_log_lines": "250"}, {"log_lines": "250"}, {}, ""),
    ({"pod_template_file": "/p.yaml"}, {}, {"kubernetes.pod_template_file": "/p.yaml"}, ""),
    ({"namespace": "jobs"}, {"namespace": "jobs"}, {"kubernetes.namespace": "jobs"}, ""),
    ({"delete_worker_pods": "false"}, {"delete_worker_pods": "False"}, {}, ""),
    ({"delete_worker_pods": "1"}, {"delete_worker_pods": "True"}, {}, ""),
    (
        {"delete_worker_pods_on_failure": "True"},
        {"delete_worker_pods_on_failure": "True"},
        {},
        "",
    ),
    ({"worker_pod_pending_fatal_container_state_reasons": "ErrImagePull"}, {}, {}, ""),
    (
        {"worker_pod_pending_fatal_container_state_reasons": "ErrImagePull,Odd"},
        {},
        {},
        "Odd is not fatal here",
    ),
    ({"worker_pod_pending_fatal_container_state_reasons": ""}, {}, {}, "fatal_waiting_grace"),
    ({"worker_pods_creation_batch_size": "16"}, {}, {}, ""),
    ({"pod_creation_max_concurrency": "16"}, {}, {}, ""),
    (
        {"pod_creation_max_concurrency": "16", "async_pod_creation": "True"},
        {},
        {"kubernetes.pool_size": 16},
        "",
    ),
    ({"pod_creation_max_concurrency": "0", "async_pod_creation": "True"}, {}, {}, ""),
    ({"multi_namespace_mode": "False"}, {}, {}, ""),
    ({"multi_namespace_mode": "True"}, {}, {}, "for each namespace that a task names: run kbroker"),
    (
        {"multi_namespace_mode": "True", "multi_namespace_mode_namespace_list": "a, b"},
        {},
        {},
        "for a, b: run kbroker watcher",
    ),
    ({"in_cluster": "True"}, {}, {}, ""),
    (OUTSIDE, {}, {}, "the kubeconfig that Airflow found by itself"),
    (
        {**OUTSIDE, "config_file": "/k", "cluster_context": "east"},
        {},
        {"kubernetes.kubeconfig": "/k", "kubernetes.context": "east"},
        "",
    ),
    ({"config_file": "/k", "cluster_context": "east"}, {}, {}, ""),
    ({"client_factory": "corp.client"}, {}, {}, "a kubeconfig, with a credential plug-in"),
    ({"async_client_factory": "corp.client"}, {}, {}, "a kubeconfig, with a credential plug-in"),
    ({"api_client_retry_configuration": '{"total": 3}'}, {}, {}, "set launcher.retry_*"),
    (
        {"kube_client_request_args": '{"_request_timeout": [5, 30]}'},
        {},
        {"kubernetes.request_timeout": 35.0},
        "",
    ),
    (
        {"kube_client_request_args": '{"_request_timeout": 7, "pretty": true}'},
        {},
        {"kubernetes.request_timeout": 7.0},
        "take no pretty",
    ),
    ({"kube_client_request_args": "[]"}, {}, {}, "it is not a JSON object"),
    ({"kube_client_request_args": '{"_request_timeout": "x"}'}, {}, {}, "no number of seconds"),
    ({"kube_client_request_args": '{"_request_timeout": 0}'}, {}, {}, "must be at least 0.1 s"),
    (
        {"delete_option_kwargs": '{"grace_period_seconds": 10, "dry_run": "All"}'},
        {},
        {},
        "terminationGracePeriodSeconds: 10 into the pod template; launchers delete without dry_run",
    ),
    ({"tcp_keep_idle": "10", "enable_tcp_keepalive": "False"}, {}, {}, ""),
    ({"verify_ssl": "True"}, {}, {}, ""),
    ({"verify_ssl": "False"}, {}, {}, "insecure-skip-tls-verify: true"),
    ({"ssl_ca_cert": "/ca.pem"}, {}, {}, "put it into the launchers' and watchers' kubeconfig"),
    ({"task_publish_max_retries": "-1"}, {}, {}, ""),
    ({"pod_launch_failure_retries": "1"}, {"relaunch_limit": "1"}, {}, ""),
    ({"pod_launch_failure_retries": "-1"}, {"relaunch_limit": "100"}, {}, "100 is the most"),
    ({"pod_launch_failure_excluded_container_reasons": "Error"}, {}, {}, ""),
    ({"pod_launch_failure_excluded_container_reasons": ""}, {}, {}, "never launched again by its"),
    ({"worker_pods_pending_timeout": "300"}, {}, {}, ""),
    ({"delete_worker_pods": "perhaps"}, {}, {}, "'perhaps' is neither True nor False"),
    ({"running_pod_log_lines": "0"}, {}, {}, "must be at least 1"),
    ({"namespace": "A b"}, {}, {}, "must be a DNS label"),
    ({"namesapce": "x"}, {}, {}, "no such option; did you mean namespace?"),
]


@pytest.mark.parametrize(("given", "options", "settings", "decision"), BECOME, ids=str)
def test_what_options_become(
    given: dict[str, str], options: dict[str, str], settings: dict[str, Any], decision: str
) -> None:
    found = planned(**given)
    assert found.options == options
    image = {"kubernetes.image": "apache/airflow:3.3.2"}
    assert found.settings == {"kubernetes.merge": "airflow", **image, **settings}
    if decision:
        assert decision in " ".join(found.decisions)
        assert all("\n" not in one for one in found.decisions)
    else:
        assert found.decisions == ()


def test_every_option_is_tried_or_needs_no_trial() -> None:
    tried = {name for given, *_ in BECOME for name in given} | set(IMAGE)
    untried = [rule.option for rule in RULES if rule.option not in tried]
    assert untried == ["logs_task_metadata", "tcp_keep_intvl", "tcp_keep_cnt"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.option)
def test_nothing_becomes_of_an_option_that_is_empty(rule: Any) -> None:
    found = planned(**{rule.option: ""} if rule.option not in IMAGE else {})
    assert (found.options, set(found.settings)) == ({}, {"kubernetes.merge", "kubernetes.image"})
    assert bool(found.decisions) is rule.empty_counts


def test_an_image_needs_both_parts() -> None:
    for name, other in zip(IMAGE, reversed(IMAGE), strict=True):
        found = plan(configured(**{name: IMAGE[name]}))
        assert any(f"ignores it without {other}" in one for one in found.decisions)
        assert any("no image is named" in one for one in found.decisions)


def test_a_template_may_name_the_image() -> None:
    assert plan(configured(pod_template_file="/p.yaml")).decisions == ()


def test_each_option_is_reported_with_its_source() -> None:
    env = {"AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "other"}
    (found,) = [one for one in plan(read_airflow(None, env)).findings if one.option == "namespace"]
    assert (found.value, found.fate) == ("other", Fate.SAME)
    assert found.source == "$AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE"


def test_the_section_of_airflow_2_counts_where_the_present_one_is_silent() -> None:
    old = configured("kubernetes", namespace="old", delete_worker_pods="False")
    found = plan(old | configured(namespace="new", **IMAGE))
    assert found.options == {"namespace": "new", "delete_worker_pods": "False"}
    (said,) = [one for one in found.findings if one.section == "kubernetes"]
    assert said.option == "delete_worker_pods"
    assert "Airflow 3 does not read" in said.why


# The list of executors.


@pytest.mark.parametrize(
    ("text", "becomes", "decision"),
    [
        ("", f"LocalExecutor,{KBROKER}", ""),
        ("KubernetesExecutor", f"KubernetesExecutor,{KBROKER}", ""),
        ("CeleryExecutor, KubernetesExecutor", f"CeleryExecutor,KubernetesExecutor,{KBROKER}", ""),
        ("K8s:a.b.KubernetesExecutor", f"K8s:a.b.KubernetesExecutor,{KBROKER}", ""),
        (f"Broker:{KBROKER}", f"Broker:{KBROKER}", ""),
        (f"{KBROKER},KubernetesExecutor", f"{KBROKER},KubernetesExecutor", ""),
        ("LocalKubernetesExecutor", f"LocalExecutor,{KBROKER}", "tasks name their executor"),
        (
            "CeleryExecutor,CeleryKubernetesExecutor",
            f"CeleryExecutor,{KBROKER}",
            "Airflow 3 has no CeleryKubernetesExecutor",
        ),
        ("A;t=B", "A;t=B", "by hand"),
    ],
)
def test_the_list_of_executors(text: str, becomes: str, decision: str) -> None:
    found = side_by_side(text)
    assert (found.text, found.is_new) == (becomes, becomes != text)
    assert decision in found.decision
    assert bool(found.decision) is bool(decision)


# What differs.


def test_what_differs_follows_the_configuration() -> None:
    texts = " ".join(planned().differences)
    for said in ("task_queued_timeout = 600 s", "3600 s", "was False", "3 times"):
        assert said in texts
    queued = configured("scheduler", task_queued_timeout="7200")
    stated = configured(delete_worker_pods_on_failure="False", pod_launch_failure_retries="1")
    texts = " ".join(plan(configured(**IMAGE) | queued | stated).differences)
    for said in ("task_queued_timeout = ", "was False", "3 times"):
        assert said not in texts
    never = configured("kbroker", launch_timeout="0")
    assert "may wait for ever" in " ".join(plan(queued | never).differences)


# The section [kbroker] that is there already.


def test_what_kbroker_is_told_already_stays() -> None:
    own = configured(
        "kbroker",
        broker_url="redis://:hunter2@redis:6379",
        namespace="mine",
        deployment="prod",
        log_lines="0",
        loglines="7",
    )
    found = plan(own | configured(namespace="jobs", **IMAGE))
    assert found.options == {"namespace": "mine", "deployment": "prod"}
    assert found.settings["kubernetes.namespace"] == "mine"
    assert found.settings["core.deployment"] == "prod"
    assert found.has_url
    said = " ".join(found.decisions)
    assert "[kbroker] log_lines: log_lines = '0': must be at least 1" in said
    assert "[kbroker] loglines: kbroker has no such option; did you mean log_lines?" in said
    assert "hunter2" not in repr(found) + airflow_sections(found) + kbroker_toml(found)


def test_a_contradiction_is_for_somebody_to_decide() -> None:
    found = plan(configured("kbroker", broker_priorities="now") | configured(**IMAGE))
    assert (
        "default_priority = 'normal': must be one of broker.priorities: now" in (found.decisions[0])
    )


def test_what_all_processes_share_are_options() -> None:
    assert set(SHARED) <= set(OPTIONS)


# The pod_mutation_hook.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def pod_mutation_hook(pod):\n    raise SystemExit\n", True),
        ("from corp.pods import mutate as pod_mutation_hook\n", True),
        ("pod_mutation_hook = print\n", True),
        ("raise SystemExit\ndef pod_mutation_hook(pod): ...\n", True),
        ("def task_policy(task): ...  # pod_mutation_hook\n", False),
        ("def (\n", False),
        (None, False),
    ],
)
def test_the_hook_is_found_without_running_anything(
    text: str | None, found: bool, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "airflow_local_settings.py"
    file.parent.mkdir()
    if text is not None:
        file.write_text(text)
    wanted = file if found else None
    assert mutation_hook(tmp_path / "airflow.cfg", {}) == wanted
    assert mutation_hook(None, {"AIRFLOW_HOME": str(tmp_path)}) == wanted
    elsewhere = {"AIRFLOW_CONFIG": "/etc/airflow.cfg", "AIRFLOW_HOME": str(tmp_path)}
    assert mutation_hook(None, elsewhere) == wanted


def test_launchers_call_the_hook() -> None:
    found = plan(configured(**IMAGE), Path("/opt/airflow/config/airflow_local_settings.py"))
    assert found.decisions == ()
    setting = "airflow_local_settings.pod_mutation_hook"
    assert found.settings["kubernetes.pod_mutation_hook"] == setting
    assert found.findings[-1].becomes == ("kubernetes.pod_mutation_hook",)


# What is printed can be pasted.


def test_the_new_files_are_read_as_they_are_meant(tmp_path: Path) -> None:
    own = configured("kbroker", deployment="100% prod", broker_priorities="now,later")
    found = plan(
        own
        | configured("kbroker", broker_default_priority="now")
        | configured(namespace="jobs", running_pod_log_lines="7", **IMAGE)
    )
    # Airflow's own parser is one of these.
    parser = configparser.ConfigParser()
    parser.read_string(airflow_sections(found))
    options = AirflowOptions.read(dict(parser["kbroker"]).get)
    assert options.log_lines == 7
    assert options.config.core.deployment == "100% prod"
    assert parser["core"]["executor"].endswith(KBROKER)
    file = tmp_path / "kbroker.toml"
    file.write_text(kbroker_toml(found))
    theirs = [KubeConfig.load(file, env={}), KubeConfig.load(env=environment(found))]
    for config in theirs:
        assert config.kubernetes.merge == "airflow"
        assert config.kubernetes.image == "apache/airflow:3.3.2"
        for name in SHARED:
            setting = OPTIONS[name].setting
            assert config.values()[setting] == options.config.values()[setting], name


# Reading.


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"AIRFLOW_CONFIG": "/etc/a.cfg", "AIRFLOW_HOME": "/opt/a"}, "/etc/a.cfg"),
        ({"AIRFLOW_HOME": "/opt/a"}, "/opt/a/airflow.cfg"),
        ({}, "~/airflow/airflow.cfg"),
    ],
)
def test_where_airflow_looks(env: dict[str, str], path: str) -> None:
    assert default_path(env) == Path(path).expanduser()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "airflow.cfg"
    file.write_text(
        "[core]\nfernet_key = %x\nexecutor = KubernetesExecutor\n"
        "[kubernetes_executor]\nnamespace = jobs\nnamespace = later\n[smtp]\nx = y\n"
    )
    env = {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor", "AIRFLOW__SMTP__X": "z", "PATH": "/bin"}
    found = read_airflow(file, env)
    assert found["kubernetes_executor", "namespace"] == Given("later", str(file))
    assert found["core", "executor"] == Given("LocalExecutor", "$AIRFLOW__CORE__EXECUTOR")
    assert all(section != "smtp" for section, _ in found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"secret = hunter2\n", "line 1 stands outside a [section]"),
        (b"[core]\nhunter2\n", "line 2 is not option = value"),
        (b"[core]\nx = \xff hunter2\n", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_without_its_text(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "airflow.cfg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_airflow(file, {})
    text = str(caught.value)
    assert said in text
    assert str(file) in text
    assert "hunter2" not in text
    assert "\n" not in text


def test_neither_file_nor_variable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the file with --airflow-cfg"):
        read_airflow(None, {"AIRFLOW_HOME": str(tmp_path)})


# The command.


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["airflow", "check", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


@pytest.fixture
def airflow_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "airflow.cfg"
    file.write_text(
        "[core]\nexecutor = KubernetesExecutor\n[kubernetes_executor]\nnamespace = jobs\n"
        "pod_template_file = /p.yaml\n"
    )
    for name in ("AIRFLOW_CONFIG", "KBROKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    return file


def test_nothing_to_decide_ends_with_0(
    airflow_cfg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys)
    assert (code, err) == (0, "")
    assert f"[kubernetes_executor] namespace = jobs  ({airflow_cfg})\n    same: " in out
    assert f"[core]\nexecutor = KubernetesExecutor,{KBROKER}\n\n[kbroker]\nbroker_url = " in out
    assert '[kubernetes]\nmerge = "airflow"\nnamespace = "jobs"\n' in out
    assert "\nKBROKER__KUBERNETES__NAMESPACE=jobs\n" in out
    assert "Decide" not in out


def test_something_to_decide_ends_with_1(
    airflow_cfg: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__VERIFY_SSL", "False")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__MY_TOKEN", "hunter2")
    monkeypatch.setenv("AIRFLOW__KBROKER__BROKER_URL", "redis://:hunter2@redis:6379")
    code, out, _ = call(capsys, "--airflow-cfg", str(airflow_cfg))
    assert code == 1
    decisions = out.partition("Decide, or do by hand:\n")[2].partition("\n\n")[0]
    assert "[kubernetes_executor] verify_ssl: " in decisions
    assert "[kubernetes_executor] my_token: " in decisions
    assert "# broker_url stays as it is" in out
    assert "hunter2" not in out


def test_the_document_for_machines(airflow_cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--json")
    document = json.loads(out)
    assert code == 0
    assert [one["option"] for one in document["options"]] == [
        "executor",
        "namespace",
        "pod_template_file",
    ]
    assert {"fate": "same", "value": "jobs"}.items() <= document["options"][1].items()
    assert tomllib.loads(document["kbroker_toml"])["broker"]["url"] == EXAMPLE_URL
    assert document["environment"]["KBROKER__KUBERNETES__POD_TEMPLATE_FILE"] == "/p.yaml"
    assert document["decisions"] == []


def test_no_file_ends_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, "--airflow-cfg", str(tmp_path / "none.cfg"))
    assert (code, out) == (2, "")
    assert err.startswith("kbroker: error: ")
    assert err.count("\n") == 1
