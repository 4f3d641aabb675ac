"""Every setting makes a difference: its effect is seen at two values of it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from kbroker.kube_config import KubeConfig
from tests.integration.settings_probes import (
    ENDED,
    PENDING,
    PULLING,
    Observe,
    World,
    about,
    again_after,
    ask_as_worker,
    asked_timeout,
    attempts,
    backed_off,
    base,
    beat,
    checked,
    connected,
    connections,
    expires_in,
    first_wait,
    keeps,
    kept_for,
    lease_ms,
    leased_for,
    longest_wait,
    looked,
    manifest,
    merged,
    message,
    obeyed,
    paced,
    paged,
    parked_for,
    patience,
    prefixed,
    priority,
    process,
    published,
    secrets_asked,
    server,
    silent,
    taken,
    template,
    tried_for,
    watched_for,
    watcher_lease_ms,
    window_ms,
)

# setting, observation, and for two values of it what is observed (a value, or a test of it).
TABLE: list[tuple[str, Observe, tuple[Any, Any], tuple[Any, Any]]] = [
    ("core.deployment", lambda w: message(w).attempt.launch.deployment, ("a", "a"), ("b", "b")),
    ("core.executor_id", lambda w: w.executor(0).executor_id, ("a", "a"), ("b", "b")),
    ("core.parallelism", published, (2, 2), (0, 5)),
    ("core.executor_lease", lease_ms, (3.0, about(1, 3000)), (30.0, about(20_000, 30_000))),
    ("core.reconcile_interval", again_after, (1.0, [True, True]), (40.0, [False, True])),
    ("core.relaunch_limit", attempts, (0, 1), (2, 3)),
    ("core.launch_timeout", expires_in, (60.0, 60), (0.0, None)),
    ("core.publish_batch", published, (3, 3), (1000, 5)),
    ("core.event_batch", taken, (1, 1), (1000, 3)),
    ("broker.url", connected, ("/0", True), ("/1", False)),
    ("broker.prefix", prefixed, ("{x}:", True), ("{y}:", False)),
    ("broker.socket_timeout", partial(patience, wait=ask_as_worker), (0.2, True), (1.0, False)),
    ("broker.scheduler_timeout", partial(patience, wait=beat), (0.2, True), (1.0, False)),
    ("broker.redelivery_after", partial(process, what="redelivery"), (3.0, 3.0), (9.0, 9.0)),
    ("broker.max_deliveries", partial(process, what="deliveries"), (1, 1), (5, 5)),
    ("broker.batch_size", partial(process, what="batch"), (1, 1), (7, 7)),
    ("broker.record_ttl", kept_for, (60.0, 60), (600.0, 600)),
    ("broker.priorities", priority, (("normal", "urgent"), "urgent"), (("normal",), "normal")),
    ("broker.default_priority", priority, ("high", "high"), ("low", "low")),
    ("kubernetes.cluster", lambda w: message(w).cluster, ("a", "a"), ("b", "b")),
    ("kubernetes.namespace", lambda w: message(w).namespace, ("a", "a"), ("b", "b")),
    ("kubernetes.kubeconfig", server, ("a", "https://a.invalid"), ("b", "https://b.invalid")),
    ("kubernetes.context", server, ("a", "https://a.invalid"), ("b", "https://b.invalid")),
    ("kubernetes.create_window", window_ms, (5.0, 5000), (50.0, 50_000)),
    ("kubernetes.request_timeout", asked_timeout, (3.0, 3.0), (7.0, 7.0)),
    ("kubernetes.retry_budget", tried_for, (2.0, False), (20.0, True)),
    ("kubernetes.pool_size", connections, (3, 3), (9, 9)),
    (
        "kubernetes.pod_template_file",
        template,
        ("TEMPLATE", "of-the-template"),
        ("", "busybox:1.37"),
    ),
    ("kubernetes.image", lambda w: base(w)["image"], ("a", "a"), ("b", "b")),
    (
        "kubernetes.image_pull_policy",
        lambda w: base(w).get("imagePullPolicy"),
        ("Always", "Always"),
        ("", None),
    ),
    (
        "kubernetes.service_account_name",
        lambda w: manifest(w)["spec"].get("serviceAccountName"),
        ("a", "a"),
        ("", None),
    ),
    ("kubernetes.gcp_service_account_keys", secrets_asked, ("a=/x,b=/y", 2), ("", 0)),
    ("kubernetes.merge", merged, ("strategic", ["other", "base"]), ("airflow", ["TemplateError"])),
    (
        "kubernetes.pod_mutation_hook",
        lambda w: manifest(w)["metadata"]["annotations"].get("example.com/hook"),
        ("tests.pod_hooks.everything", "1"),
        ("", None),
    ),
    ("kubernetes.delete_worker_pods", partial(keeps, succeeded=True), (True, False), (False, True)),
    (
        "kubernetes.delete_worker_pods_on_failure",
        partial(keeps, succeeded=False),
        (True, False),
        (False, True),
    ),
    (
        "kubernetes.active_deadline",
        lambda w: manifest(w)["spec"].get("activeDeadlineSeconds"),
        (90.0, 90),
        (0.0, None),
    ),
    ("launcher.retry_base", first_wait, (0.1, about(0.001, 0.1)), (4.0, about(0.4, 4.0))),
    ("launcher.retry_max", longest_wait, (0.5, about(0.2, 0.5)), (5.0, about(1.0, 5.0))),
    ("launcher.retry_after_max", obeyed, (2.0, about(2.0, 2.3)), (9.0, about(9.0, 9.3))),
    ("launcher.max_create_rate", paced, (10.0, about(0.2, 2.0)), (0.0, 0.0)),
    ("launcher.park_base", parked_for, (2.0, about(0, 2.5)), (40.0, about(19, 41))),
    (
        "launcher.park_max",
        partial(parked_for, before=20),
        (5.0, about(1.4, 5.5)),
        (500.0, about(249, 501)),
    ),
    ("launcher.park_lease", leased_for, (30.0, about(29, 31)), (300.0, about(299, 301))),
    ("launcher.drain_interval", partial(process, what="interval"), (3.0, 3.0), (9.0, 9.0)),
    ("watcher.lease", watcher_lease_ms, (3.0, about(1, 3000)), (30.0, about(20_000, 30_000))),
    ("watcher.resync_interval", watched_for, (50.0, 50), (5000.0, 290)),
    ("watcher.watch_timeout", watched_for, (50.0, 50), (100.0, 100)),
    ("watcher.silent_timeout", silent, (0.5, True), (5.0, False)),
    ("watcher.page_size", paged, (7, [7]), (70, [70])),
    ("watcher.check_interval", looked, (0.05, about(2, 6)), (5.0, 0)),
    (
        "watcher.pending_timeout",
        partial(checked, note=PENDING, seconds=100),
        (50.0, (True, False)),
        (500.0, (False, False)),
    ),
    (
        "watcher.fatal_waiting_grace",
        partial(checked, note=PULLING, seconds=100),
        (50.0, (True, False)),
        (500.0, (False, False)),
    ),
    (
        "watcher.orphan_after",
        partial(checked, note=ENDED, seconds=1000),
        (500.0, (False, True)),
        (5000.0, (False, False)),
    ),
    (
        "watcher.backoff_base",
        partial(backed_off, failures=1),
        (0.01, about(0, 0.01)),
        (8.0, about(0.1, 8)),
    ),
    (
        "watcher.backoff_max",
        partial(backed_off, failures=50),
        (2.0, about(1, 2)),
        (20.0, about(10, 20)),
    ),
]


def test_every_setting_is_proven() -> None:
    assert [name for name, *_ in TABLE] == list(KubeConfig().values())


@pytest.mark.parametrize(("one", "other"), [pytest.param(*row[2:], id=row[0]) for row in TABLE])
def test_a_proof_has_two_values_and_expects_something_else_of_each(one: Any, other: Any) -> None:
    assert one[0] != other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("name", "observe", "value", "expected"),
    [
        pytest.param(name, observe, value, expected, id=f"{name}={value}")
        for name, observe, *cases in TABLE
        for value, expected in cases
    ],
)
def test_it_takes_effect(
    redis_url: str, tmp_path: Any, name: str, observe: Observe, value: Any, expected: Any
) -> None:
    if name == "broker.url":
        value = urlsplit(redis_url)._replace(path=value).geturl()
    if value == "TEMPLATE":
        value = str(tmp_path / "template.yaml")
        container = {"name": "base", "image": "of-the-template"}
        document = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}}
        (tmp_path / "template.yaml").write_text(json.dumps(document))
    seen = observe(World(redis_url, tmp_path, name, value))
    good = expected(seen) if callable(expected) else seen == expected
    assert good, seen
