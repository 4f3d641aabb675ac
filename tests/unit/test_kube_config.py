"""The configuration: where values come from, what is refused, and the documented file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ConfigError
from kbroker.kube_config import KubeConfig
from kbroker.redis_client import connect
from kbroker.settings import SECTIONS, bounds_of
from kbroker.settings_file import document

FILE = Path(__file__).resolve().parents[2] / "config" / "kbroker.toml"


def test_the_documented_file_is_what_the_code_says() -> None:
    assert FILE.read_text() == document(), "python -m kbroker.settings_file > config/kbroker.toml"


def test_the_documented_file_states_every_default() -> None:
    stated = KubeConfig.load(FILE, env={})
    assert stated == KubeConfig()
    assert set(stated.sources) == set(stated.values())


def test_every_setting_says_what_it_means() -> None:
    for section in SECTIONS:
        for key, bounds in bounds_of(section).items():
            assert bounds.meaning.endswith("."), f"{section}.{key}"


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    file.write_text("[core]\nparallelism = 1\nrelaunch_limit = 1\npublish_batch = 1\n")
    env = {"KBROKER__CORE__RELAUNCH_LIMIT": "2", "KBROKER__CORE__PUBLISH_BATCH": "2", "PATH": "x"}
    config = KubeConfig.load(file, env=env, overrides={"core.publish_batch": 3})
    core = config.core
    assert (core.parallelism, core.relaunch_limit, core.publish_batch) == (1, 2, 3)
    assert core.event_batch == KubeConfig().core.event_batch
    assert [config.source(f"core.{key}") for key in ("parallelism", "relaunch_limit")] == [
        str(file),
        "environment variable KBROKER__CORE__RELAUNCH_LIMIT",
    ]
    assert config.source("core.publish_batch") == "argument core.publish_batch"
    assert config.source("core.event_batch") == "default"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    file.write_text('[kubernetes]\nnamespace = "jobs"\n')
    assert KubeConfig.load(env={"KBROKER_CONFIG": str(file)}).kubernetes.namespace == "jobs"


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("YES", True), ("1", True), ("off", False), ("False", False)],
)
def test_booleans_from_the_environment(text: str, value: bool) -> None:
    config = KubeConfig.load(env={"KBROKER__KUBERNETES__DELETE_WORKER_PODS": text})
    assert config.kubernetes.delete_worker_pods is value


def test_lists_from_the_environment() -> None:
    env = {"KBROKER__BROKER__PRIORITIES": "now, normal ,later"}
    assert KubeConfig.load(env=env).broker.priorities == ("now", "normal", "later")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[cor]\nx = 1\n", "there is no section [cor]; did you mean 'core'?"),
        ("[core]\nparalelism = 1\n", "has no key 'paralelism'; did you mean 'parallelism'?"),
        ('[core]\nparallelism = "four"\n', "core.parallelism = 'four': must be a whole number"),
        ("[core]\nparallelism = true\n", "core.parallelism = True: must be a whole number"),
        ("[core]\nparallelism = -1\n", "must be at least 0"),
        ("[core]\nexecutor_lease = 'x'\n", "core.executor_lease = 'x': must be a number"),
        ("[kubernetes]\nnamespace = 'A b'\n", "must be a DNS label"),
        ("[kubernetes]\nmerge = 'json'\n", "must be one of 'strategic', 'airflow'"),
        ("[broker]\nprefix = 'kbroker:'\n", "must be a text with a {hash tag}"),
        ("[broker]\npriorities = 'high'\n", "must be a list of texts"),
        ("[broker]\npriorities = ['a', 'a']\n", "must be names (letters, digits, '-', '_'), each"),
        ("[broker]\npriorities = ['a,b']\n", "must be names (letters, digits, '-', '_'), each"),
        ("[broker]\npriorities = []\n", "must be names (letters, digits, '-', '_'), each"),
        ("[core]\nexecutor_lease = nan\n", "core.executor_lease = nan: must be a finite number"),
        ("[watcher]\nlease = inf\n", "watcher.lease = inf: must be a finite number"),
        ("[broker]\ndefault_priority = 'urgent'\n", "must be one of broker.priorities: high"),
        ("[launcher]\npark_base = 90.0\n", "must not exceed launcher.park_max (60 s)"),
        ("[watcher]\nbackoff_base = 31\n", "must not exceed watcher.backoff_max (30 s)"),
        ("core = 1\n", "'core' stands outside a section"),
        ("[core\n", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_clear_line(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "k.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        KubeConfig.load(file, env={})
    text = str(caught.value)
    assert said in text
    assert str(file) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"KBROKER__CORE__PARALLELISM": "many"}, "KBROKER__CORE__PARALLELISM: core.parallelism ="),
        ({"KBROKER__CORES__PARALLELISM": "1"}, "did you mean 'core'?"),
        ({"KBROKER__KUBERNETES__DELETE_WORKER_PODS": "maybe"}, "must be true or false"),
        ({"KBROKER__WATCHER__LEASE": "nan"}, "must be a finite number"),
        ({"KBROKER__CORE": "1"}, "[core] has no key ''"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(env: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match="environment variable KBROKER__") as caught:
        KubeConfig.load(env=env)
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        KubeConfig.load(tmp_path / "none.toml", env={})


def _values(section: str, key: str) -> st.SearchStrategy[Any]:
    bounds = bounds_of(section)[key]
    default = getattr(SECTIONS[section](), key)
    if isinstance(default, bool):
        return st.booleans()
    if bounds.choices:
        return st.sampled_from(bounds.choices)
    least = bounds.least or 0
    most = bounds.most or 10**6
    if isinstance(default, int):
        return st.integers(int(least), int(most))
    if isinstance(default, float):
        return st.floats(least, most, allow_nan=False)
    return st.just(default)


FREE = [
    f"{section}.{key}"
    for section in SECTIONS
    for key in bounds_of(section)
    if not key.startswith(("park_", "backoff_"))  # these are compared with each other
]


@given(st.fixed_dictionaries({}, optional={name: _values(*name.split(".")) for name in FREE}))
def test_a_child_process_gets_the_same_configuration(values: dict[str, Any]) -> None:
    config = KubeConfig.from_values(**values)
    assert KubeConfig.load(env=config.as_env()) == config


@pytest.mark.parametrize("url", ["http://h:1/0", "redis://user:secret@h:abc/0"])
def test_a_url_that_is_not_of_redis_is_one_line_without_its_secret(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a Redis URL") as caught:
        connect(url, 1.0)
    assert "secret" not in str(caught.value)
