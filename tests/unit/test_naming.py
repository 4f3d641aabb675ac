"""Names, labels and annotations of an attempt's pod."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kbroker import naming
from kbroker.task import Attempt, Launch, TaskKey

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

TEXT = st.text(
    st.one_of(st.sampled_from("aZ0-_. é\n:/+"), st.characters(exclude_categories=["Cs"])),
    max_size=90,
)
IDS = TEXT.filter(bool)
ATTEMPTS = st.builds(
    lambda deployment, key, launch_id, number: Launch(deployment, key, launch_id).attempt(number),
    IDS,
    st.builds(
        TaskKey,
        IDS,
        IDS,
        IDS,
        st.integers(0, 2**31 - 1),
        st.integers(-1, 2**31 - 1),
        st.none() | IDS,
    ),
    IDS,
    st.integers(1, 2**31 - 1),
)


def attempt(dag_id="dag", task_id="task", **changes) -> Attempt:
    key = TaskKey(dag_id, task_id, changes.pop("run_id", "run"), **changes)
    return Launch("kbroker", key, "launch-1").attempt(1)


# Made with make_safe_label_value of apache-airflow-providers-cncf-kubernetes 10.25.
AIRFLOW_LABELS = [
    ("", ""),
    ("0", "0"),
    ("simple", "simple"),
    ("example_dag", "example_dag"),
    ("Dag.Sub_Task-1", "Dag.Sub_Task-1"),
    ("with space", "withspace-37fdaf3e3"),
    (" a ", "a-e49736f09"),
    ("tab\there", "tabhere-844fd4cec"),
    ("line\n", "line-5b4bd9815"),
    ("a.\n", "a-a0d310e2b"),
    ("a/b:c", "abc-42d7d68ba"),
    ("-leading", "leading-509408fb8"),
    ("trailing.", "trailing-0ae290b9d"),
    ("ünïcode", "ncode-cd1850cd2"),
    ("manual__2024-01-01T00:00:00+00:00", "manual__2024-01-01T0000000000-701821d7a"),
    (
        "scheduled__2026-11-23T06:00:00.123456+00:00",
        "scheduled__2026-11-23T060000.1234560000-94827d834",
    ),
    ("a" * 63, "a" * 63),
    ("a" * 64, "a" * 53 + "-014842d48"),
    ("x" * 52 + "-yz" + "q" * 20, "x" * 52 + "--d3304cbe9"),
    ("x" * 53 + "." * 20 + "y", "x" * 53 + "-8f544c28c"),
    ("A" * 10_000, "A" * 53 + "-0f53217fc"),
]

# There Airflow gives the same with a leading "-", which the API server refuses.
HASH_ALONE = [
    ("...", "2f43b42fd"),
    ("_", "b14a7b805"),
    ("-", "336d5ebc5"),
    ("é", "66ddcd97c"),
    ("任务", "0e46d8d6b"),
    ("😀", "2a02eac39"),
]


@pytest.mark.parametrize(("value", "label"), AIRFLOW_LABELS + HASH_ALONE)
def test_label_values_are_airflows(value, label):
    assert naming.make_safe_label_value(value) == label


@given(TEXT | st.text(st.sampled_from("aB1-_."), min_size=50, max_size=80))
@example("." * 100)
@example("a" + "." * 62)
def test_label_values_are_valid(value):
    label = naming.make_safe_label_value(value)
    assert len(label) <= 63
    assert LABEL_VALUE.fullmatch(label)
    if len(value) <= 63 and LABEL_VALUE.fullmatch(value):
        assert label == value
    else:
        assert re.search(r"(^|-)[0-9a-f]{9}$", label)


# Made with datetime_to_label_safe_datestring of the same provider.
@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00_00_00_plus_00_00"),
        (
            datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
            "2024-02-29T23_59_59.999999_plus_00_00",
        ),
        (
            datetime(2024, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "2024-01-01T05_30_00_plus_05_30",
        ),
        (
            datetime(2024, 1, 1, tzinfo=timezone(-timedelta(hours=8))),
            "2024-01-01T00_00_00-08_00",
        ),
        (datetime(2024, 1, 1, 12), "2024-01-01T12_00_00"),  # noqa: DTZ001
    ],
)
def test_date_strings_are_airflows(moment, text):
    assert naming.datetime_to_label_safe_datestring(moment) == text
    assert naming.label_safe_datestring_to_datetime(text) == moment


@given(
    st.datetimes(
        timezones=st.none()
        | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    )
)
def test_date_strings_round_trip(moment):
    text = naming.datetime_to_label_safe_datestring(moment)
    assert LABEL_VALUE.fullmatch(text)
    assert naming.label_safe_datestring_to_datetime(text) == moment


def test_a_date_string_that_is_none():
    with pytest.raises(ValueError, match="isoformat"):
        naming.label_safe_datestring_to_datetime("yesterday")


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("", ""),
        ("Dag_Id-1.x", "dagid1x"),
        ("é任务😀", ""),
        ("K", "k"),  # the Kelvin sign's lower case is an ASCII k
        ("a²b", "ab"),
    ],
)
def test_strip_unsafe_kubernetes_special_chars(text, stripped):
    assert naming.strip_unsafe_kubernetes_special_chars(text) == stripped


@pytest.mark.parametrize(
    ("arguments", "pod_id"),
    [
        (("dag", "task", "8f2a-11"), "dagtask-8f2a-11"),
        (("My_Dag", "t.1", "ABC"), "mydagt1-abc"),
        (("d" * 300, "t", "u" * 10), "d" * 242 + "-" + "u" * 10),
        (("dag", "task", "é"), "dagtask"),
        (("é", "", "u-1"), "u-1"),
        (("", "", ""), "task"),
    ],
)
def test_make_safe_pod_id(arguments, pod_id):
    assert naming.make_safe_pod_id(*arguments) == pod_id


@given(TEXT, TEXT, TEXT, st.integers(1, 20))
def test_pod_ids_are_valid(dag_id, task_id, uuid, times):
    pod_id = naming.make_safe_pod_id(dag_id, task_id * times, uuid * times)
    assert len(pod_id) <= 253
    assert DNS_SUBDOMAIN.fullmatch(pod_id)
    assert re.fullmatch("[a-z0-9]*", naming.create_pod_id(dag_id, task_id))


@pytest.mark.parametrize(
    ("dag_id", "task_id", "slug"),
    [
        ("example_dag", "Load.Rows", "example-dag-load-rows"),
        ("d", "t" * 100, "d-" + "t" * 40),
        ("d" * 41, "task", "d" * 41),  # no "-" left dangling at the cut
        ("--a--", "__b__", "a-b"),
        ("任务", "é", "task"),
        ("é", "load", "load"),
        ("x" * 10_000, "y" * 10_000, "x" * 42),
    ],
)
def test_pod_name(dag_id, task_id, slug):
    which = attempt(dag_id, task_id)
    assert naming.pod_name(which) == f"{slug}-{which.digest[:20]}"


@given(ATTEMPTS)
def test_pod_names_are_valid_and_deterministic(which):
    name = naming.pod_name(which)
    assert len(name) <= 63
    assert DNS_LABEL.fullmatch(name)
    again = Launch(which.launch.deployment, which.launch.key, which.launch.launch_id)
    assert naming.pod_name(again.attempt(which.number)) == name
    assert naming.pod_name(which.next() if which.number < 2**31 - 1 else again.attempt(1)) != name


@given(st.lists(ATTEMPTS, min_size=2, max_size=6))
def test_pod_names_tell_attempts_apart(attempts):
    assert len({naming.pod_name(which) for which in attempts}) == len(set(attempts))


def test_pod_names_tell_shifted_ids_apart():
    assert naming.pod_name(attempt("a-b", "c")) != naming.pod_name(attempt("a", "b-c"))


def test_labels():
    which = attempt(
        "my dag",
        "task",
        run_id="run",
        try_number=2,
        map_index=7,
        logical_date="2024-01-01T00:00:00Z",
    )
    assert naming.labels_for(which, "host-ab12cd") == {
        "dag_id": naming.make_safe_label_value("my dag"),
        "task_id": "task",
        "run_id": "run",
        "try_number": "2",
        "map_index": "7",
        "logical_date": "2024-01-01T00_00_00_plus_00_00",
        "airflow-worker": "host-ab12cd",
        "kubernetes_executor": "True",
        "app.kubernetes.io/managed-by": "kbroker",
        "kbroker/deployment": "kbroker",
    }


def test_labels_of_an_unmapped_task_without_date():
    assert not {"map_index", "logical_date"} & set(naming.labels_for(attempt(), "x"))


def test_annotations():
    which = attempt("my dag", "täsk", try_number=2, logical_date="2024-01-01T00:00:00Z")
    assert naming.annotations_for(which, "host é") == {
        "dag_id": "my dag",
        "task_id": "täsk",
        "run_id": "run",
        "try_number": "2",
        "map_index": "-1",
        "logical_date": "2024-01-01T00:00:00Z",
        "kbroker/deployment": "kbroker",
        "kbroker/launch-id": "launch-1",
        "kbroker/attempt": "1",
        "kbroker/executor": "host é",
    }


@given(ATTEMPTS, TEXT)
def test_attempts_round_trip_and_labels_are_valid(which, executor_id):
    read = naming.attempt_from_annotations(naming.annotations_for(which, executor_id))
    assert read == which
    assert read is not None
    assert read.launch.key.logical_date == which.launch.key.logical_date
    for label in naming.labels_for(which, executor_id).values():
        assert len(label) <= 63
        assert LABEL_VALUE.fullmatch(label)


@pytest.mark.parametrize(
    "name",
    [
        "dag_id",
        "task_id",
        "run_id",
        "try_number",
        "map_index",
        "kbroker/deployment",
        "kbroker/launch-id",
        "kbroker/attempt",
    ],
)
def test_missing_or_empty_annotations_are_not_ours(name):
    annotations = naming.annotations_for(attempt(), "x")
    assert naming.attempt_from_annotations(annotations | {name: ""}) is None
    del annotations[name]
    assert naming.attempt_from_annotations(annotations) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("try_number", "one"),
        ("try_number", "1_0"),
        ("try_number", " 1"),
        ("try_number", "-1"),
        ("try_number", "9" * 5000),
        ("map_index", "-2"),
        ("map_index", "٣"),
        ("kbroker/attempt", "0"),
        ("kbroker/attempt", 1),
        ("kbroker/attempt", None),
    ],
)
def test_unreadable_annotations_are_not_ours(name, value):
    annotations = naming.annotations_for(attempt(), "x") | {name: value}
    assert naming.attempt_from_annotations(annotations) is None


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_413_600_123, "2026-11-23T06:00:00.123Z"),
        (1_795_413_600_999, "2026-11-23T06:00:00.999Z"),
    ],
)
def test_create_before_annotation(moment, text):
    assert naming.create_before_annotation(moment) == text


@given(st.integers(0, 4_000_000_000_000))
def test_create_before_annotation_is_exact(moment):
    read = datetime.fromisoformat(naming.create_before_annotation(moment))
    assert (read - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1) == moment


def test_deployment_selector():
    assert naming.deployment_selector(
        "my deployment"
    ) == "kubernetes_executor=True,kbroker/deployment=" + naming.make_safe_label_value(
        "my deployment"
    )
    labels = naming.labels_for(attempt(), "x")
    for term in naming.deployment_selector("kbroker").split(","):
        name, value = term.split("=")
        assert labels[name] == value
