"""`docs/airflow.md`: its tables are those of the code, and what it shows can be pasted."""

from __future__ import annotations

import configparser
import re
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

from kbroker.airflow.migration import option_page
from kbroker.airflow.migration.executor_list import KBROKER
from kbroker.airflow.migration.plan import SHARED
from kbroker.airflow.options import OPTIONS, AirflowOptions
from kbroker.kube_config import KubeConfig
from kbroker.pod_spec import load_template
from kbroker.settings import BrokerSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "airflow.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


@pytest.mark.parametrize(
    "table",
    [
        option_page.own_options,
        option_page.kubernetes_executor_options,
        option_page.earlier_options,
    ],
)
def test_a_table_is_the_codes(table: object) -> None:
    assert callable(table)
    assert table() in PAGE, "paste the new one: python -m kbroker.airflow.migration.option_page"


def test_the_page_says_what_all_processes_share() -> None:
    paragraph = next(p for p in PAGE.split("\n\n") if p.startswith("The URL of Redis, "))
    assert re.findall(r"`(.*?)`", paragraph) == [*SHARED, "deployment"]


def test_the_sections_for_airflow_are_usable() -> None:
    first, both = (configparser.ConfigParser() for _ in range(2))
    texts = blocks("ini")
    first.read_string(texts[0])
    both.read_string(texts[1])
    options = AirflowOptions.read(dict(first["kbroker"]).get)
    assert set(first["kbroker"]) <= set(OPTIONS)
    assert options.config.kubernetes.namespace == "airflow-tasks"
    assert first["core"]["executor"] == KBROKER
    assert both["core"]["executor"] == f"KubernetesExecutor,{KBROKER}"


def test_the_file_for_launchers_agrees_with_airflows_section(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    file = tmp_path / "kbroker.toml"
    file.write_text(text)
    theirs = KubeConfig.load(file, env={}).values()
    airflows = configparser.ConfigParser()
    airflows.read_string(blocks("ini")[0])
    ours = AirflowOptions.read(dict(airflows["kbroker"]).get).config.values()
    for name in SHARED:
        assert theirs[OPTIONS[name].setting] == ours[OPTIONS[name].setting], name
    assert tomllib.loads(text)["kubernetes"]["merge"] == "airflow"


def test_the_deployment_is_one_that_finds_its_configuration() -> None:
    deployment = yaml.safe_load(blocks("yaml")[0])
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    manifests = (ROOT / "config" / "kubernetes" / "launcher.yaml").read_text()
    accounts = [one["metadata"]["name"] for one in yaml.safe_load_all(manifests)]
    assert pod["spec"]["serviceAccountName"] in accounts
    (container,) = pod["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = pod["spec"]["volumes"]
    file, url = container["env"]
    assert (mount["name"], file["name"]) == (volume["name"], "KBROKER_CONFIG")
    assert file["value"].startswith(mount["mountPath"])
    setting = url["name"].removeprefix("KBROKER__BROKER__").lower()
    assert setting in BrokerSettings.__dataclass_fields__


def test_the_label_is_one_that_a_template_may_have(tmp_path: Path) -> None:
    label = yaml.safe_load(blocks("yaml")[1])
    template = load_template("") | label
    (tmp_path / "template.yaml").write_text(yaml.safe_dump(template))
    assert load_template(str(tmp_path / "template.yaml"))["metadata"] == label["metadata"]


def test_the_dag_is_python() -> None:
    (text,) = blocks("python")
    compile(text, "docs/airflow.md", "exec")
