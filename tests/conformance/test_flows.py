"""Executor, launchers and watchers at work, with the shipped roles; the suite plays the node.

The launchers and watchers are processes of their own, with tokens of the service
accounts `kbroker-launcher` and `kbroker-watcher` and no other right.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from kbroker.event import Cause
from tests.conformance.accounts import SHIPPED, Accounts
from tests.conformance.cluster import Cluster, Object, path, poll
from tests.conformance.flow import REAL_NODE, Flow, NewFlow
from tests.conformance.pods import Pods
from tests.conformance.policy import DENIED, Policy, create_before
from tests.conformance.proxy import HeldCreate, Proxy
from tests.conformance.quota import Quota
from tests.integration.stack import Roles


def test_success(new_flow: NewFlow) -> None:
    flow = new_flow("success")
    flow.submit("task")
    pod = flow.pod("task")
    assert "running" not in flow.states["task"]
    flow.end("task")
    state, outcome = flow.outcome("task")
    assert (state, outcome.uid, outcome.pod, outcome.attempts) == ("success", pod.uid, pod.name, 1)
    assert flow.states["task"] == ["queued", "running", "success"]
    flow.cleared("task")
    assert len(flow.finals["task"]) == 1


@pytest.mark.parametrize("code", [1, 137])
def test_failure_with_an_exit_code(new_flow: NewFlow, code: int) -> None:
    flow = new_flow(f"failure-{code}")
    flow.submit("task")
    pod = flow.run("task")
    flow.node.ends(pod.name, code)
    state, outcome = flow.outcome("task")
    assert (state, outcome.cause, outcome.exit_code) == ("failed", Cause.ERROR, code)
    assert f"exit code {code}" in str(outcome)


def test_a_pod_that_cannot_start_is_stopped_and_says_why(
    new_flow: NewFlow, cluster: Cluster
) -> None:
    flow = new_flow("image", core__relaunch_limit=0)
    flow.submit("task")
    pod = flow.pod("task")
    where = path("pods", flow.namespace, pod.name)
    flow.node.bind(pod.name)
    flow.node.waits(pod.name, "ImagePullBackOff", "no such image, says the registry")

    def stopped() -> bool:
        spec: Object = cluster.call("GET", where).expect(200)["spec"]
        return spec.get("activeDeadlineSeconds") == 1

    flow.until("it is stopped", stopped)
    flow.node.say(pod.name, phase="Failed", reason="DeadlineExceeded")
    state, outcome = flow.outcome("task")
    assert (state, outcome.cause) == ("failed", Cause.IMAGE_PULL)
    assert "no such image, says the registry" in (outcome.message or "")


def test_revoked_before_and_after_the_start(new_flow: NewFlow) -> None:
    flow = new_flow("revoked")
    flow.submit("early", "late")
    flow.pod("early")
    running = flow.run("late")
    for task in flow.tasks:
        assert flow.executor.revoke(flow.key(task))
    assert flow.executor.running == set()

    def told_to_end() -> bool:
        return any(found.metadata.deletion_timestamp for found in flow.pods("late"))

    flow.until("the running pod is told to end", told_to_end)
    flow.node.gone(running.name)
    flow.cleared("early", "late")
    assert not any(flow.finals.values())


def test_adopted_by_another_executor(roles: Roles, cluster: Cluster) -> None:
    first = Flow(roles, cluster, "adopted", roles.executor("ancestor", core__executor_lease=1.0))
    first.submit("runs", "waits")
    pod = first.run("runs")
    waiting = first.pod("waits")
    # It dies: nothing is handed over, its lease runs out.
    first.executor.scheduler.close()
    second = Flow(roles, cluster, "adopted", roles.executor("heir"))
    second.tasks += ["runs", "waits"]
    requests = [second.request(task) for task in second.tasks]
    poll("the lease has run out", lambda: not second.executor.adopt(requests))
    second.node.ends(pod.name)
    state, outcome = second.outcome("runs")
    assert (state, outcome.uid) == ("success", pod.uid)
    second.end("waits")
    state, outcome = second.outcome("waits")
    assert (state, outcome.uid) == ("success", waiting.uid)
    second.executor.end()


def test_launched_again_when_nothing_has_started(new_flow: NewFlow, cluster: Cluster) -> None:
    flow = new_flow("again")
    flow.submit("deleted", "refused")
    first = {task: flow.pod(task) for task in flow.tasks}
    lost = first["deleted"]
    cluster.do(cluster.kube.delete_pod(flow.namespace, lost.name, uid=lost.uid))
    flow.node.bind(first["refused"].name)
    flow.node.refuses(first["refused"].name)
    for task in flow.tasks:
        pod = flow.pod(task, but=first[task].name)
        assert pod.uid != first[task].uid
        flow.node.bind(pod.name)
        flow.node.runs(pod.name)
        flow.node.ends(pod.name)
    for task in flow.tasks:
        state, outcome = flow.outcome(task)
        assert (state, outcome.attempts) == ("success", 2)
        assert flow.states[task].count("failed") == 0


def test_a_standby_takes_over_and_nothing_is_lost(
    new_flow: NewFlow, roles: Roles, shipped: dict[str, Cluster]
) -> None:
    flow = new_flow("take-over")
    flow.submit("ends", "fails", "runs")
    pods = {task: flow.run(task) for task in flow.tasks}
    leader = roles.leader()
    (process,) = (p for p in roles.processes if leader.endswith(f"-{p.pid}"))
    process.kill()
    # All of this happens while nobody watches.
    flow.node.ends(pods["ends"].name)
    flow.node.ends(pods["fails"].name, 7)
    flow.until("the standby leads", lambda: roles.leader() not in ("", leader))
    flow.node.ends(pods["runs"].name)
    assert flow.outcome("ends")[0] == "success"
    state, outcome = flow.outcome("fails")
    assert (state, outcome.exit_code) == ("failed", 7)
    assert flow.outcome("runs")[0] == "success"
    assert {task: len(finals) for task, finals in flow.finals.items()} == dict.fromkeys(pods, 1)
    roles.watcher(kubernetes__kubeconfig=shipped["watcher"].kubeconfig)


def test_a_launcher_without_its_role_lets_tasks_wait(
    new_flow: NewFlow, accounts: Accounts, cluster: Cluster, shipped: dict[str, Cluster]
) -> None:
    flow = new_flow("no-role")
    flow.submit("before")
    flow.pod("before")  # the launcher is at work
    (binding,) = (
        content
        for content in yaml.safe_load_all((SHIPPED / "launcher.yaml").read_text())
        if content["kind"] == "RoleBinding"
    )
    cluster.call("DELETE", accounts.binding("kbroker-launcher")).expect(200)
    try:
        accounts.until(shipped["launcher"], "create", "pods", allowed=False)
        flow.submit("task")

        def says_why() -> bool:
            said = flow.waits_for("task")
            return "not ready" in said and "create" in said and flow.namespace in said

        flow.until("the task says why it waits", says_why)
        assert flow.pods("task") == []
        assert flow.finals["task"] == []
    finally:
        accounts.apply(binding)
    flow.end("task")
    assert flow.outcome("task")[0] == "success"


def test_an_exceeded_quota_lets_tasks_wait(
    new_flow: NewFlow, cluster: Cluster, namespace: str, pods: Pods
) -> None:
    flow = new_flow("quota")
    with Quota(cluster, namespace, pods=0) as quota:
        quota.until_exceeded(pods)
        flow.submit("task")
        flow.until(
            "the task says why it waits",
            lambda: f"exceeded quota: {quota.name}" in (flow.waits_for("task")),
        )
        assert flow.pods("task") == []
    flow.end("task")
    state, outcome = flow.outcome("task")
    assert (state, outcome.attempts) == ("success", 1)


def test_a_create_that_is_held_up_for_too_long_is_refused_by_the_policy(
    cluster: Cluster,
    shipped: dict[str, Cluster],
    namespace: str,
    template: str,
    tmp_path: Path,
) -> None:
    """The network delivers it when its task is done and its pod gone: it starts nothing."""
    settings = {
        "kubernetes.namespace": namespace,
        "kubernetes.pod_template_file": template,
        "core.deployment": "policy",  # the others' pods are in the same namespace
        # The request that is held up is given up and repeated well within the window.
        "kubernetes.create_window": 4.0,
        "kubernetes.request_timeout": 1.0,
    }
    labels = {"run_id": "held-up"}
    late = create_before(Pods(cluster, namespace).manifest(labels=labels), time.time() - 60)
    with (
        Policy(cluster, labels) as policy,
        Proxy(shipped["launcher"], tmp_path) as proxy,
        Roles(tmp_path, **settings) as roles,
    ):
        policy.until_in_force(Pods(cluster, namespace).path(), late)
        held = HeldCreate(proxy, shipped["launcher"])
        roles.watcher(kubernetes__kubeconfig=shipped["watcher"].kubeconfig)
        roles.launcher(kubernetes__kubeconfig=proxy.kubeconfig)
        flow = Flow(roles, cluster, "held-up", roles.executor())
        flow.submit("task")
        flow.end("task")
        assert flow.outcome("task")[0] == "success"
        flow.cleared("task")
        assert held.held
        held.release()
        answer = poll("the held create is answered", lambda: held.answer)
        assert answer is not None
        assert answer.expect(422)["message"].endswith(DENIED)
        assert flow.pods("task") == []
        flow.executor.end()
        roles.kill()


@pytest.mark.kubelet
class TestOnRealNodes:
    def test_tasks_end_as_their_commands_do(self, new_flow: NewFlow) -> None:
        flow = new_flow("real", core__relaunch_limit=0)
        flow.submit("well", command=("sh", "-c", "sleep 0.2"), **REAL_NODE)
        flow.submit("badly", command=("sh", "-c", "exit 5"), **REAL_NODE)
        flow.submit("nothing", command=("no-such-command",), **REAL_NODE)
        flow.finish(90)
        assert flow.outcome("well")[0] == "success"
        state, outcome = flow.outcome("badly")
        assert (state, outcome.cause, outcome.exit_code) == ("failed", Cause.ERROR, 5)
        state, outcome = flow.outcome("nothing")
        assert (state, outcome.cause) == ("failed", Cause.CONFIG_ERROR)

    def test_an_image_that_cannot_be_pulled_fails_its_task(self, new_flow: NewFlow) -> None:
        flow = new_flow("real-image", core__relaunch_limit=0)
        flow.submit("task", image="kbroker.invalid/conformance:none", **REAL_NODE)
        flow.finish(90)
        state, outcome = flow.outcome("task")
        assert (state, outcome.cause) == ("failed", Cause.IMAGE_PULL)

    def test_a_revoked_command_is_ended(self, new_flow: NewFlow) -> None:
        flow = new_flow("real-revoked")
        short = {"spec": {**REAL_NODE["pod_override"]["spec"], "terminationGracePeriodSeconds": 1}}
        flow.submit("task", command=("sleep", "600"), pod_override=short)
        flow.until("it runs", lambda: "running" in flow.states["task"], 90)
        assert flow.executor.revoke(flow.key("task"))
        flow.cleared("task")
        assert flow.finals["task"] == []
