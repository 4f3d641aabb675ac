"""KBrokerExecutor between Airflow's own classes and a real Redis; the scheduler's loop, launchers
and the watcher are played."""

from __future__ import annotations

# isort: off
from tests.airflow.airflow_home import make_tables

# isort: on

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors import workloads
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState as State
from sqlalchemy import delete, insert, select, update

from kbroker.airflow import KBrokerExecutor
from kbroker.airflow.identity import task_key
from kbroker.airflow.workload import with_fresh_token
from kbroker.event import Cause, PodState, Started
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.message import LaunchMessage
from kbroker.work_item import failed as given_up
from tests.integration.scene import Scene, failed, poll

JOB = 7


def new_id() -> Any:
    """Of a task instance, in the type of its column: text before Airflow 3.2."""
    return TaskInstance.id.type.python_type(str(uuid.uuid4()))


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    make_tables()
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def scene(redis: EmbeddedRedis) -> Iterator[Scene]:
    scene = Scene(redis.url)
    scene.redis.flushall()
    scene.lead()
    yield scene
    scene.redis.close()


@pytest.fixture
def make(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., KBrokerExecutor]]:
    """Starts executors, each in the name of a scheduler's job."""
    with create_session() as session:
        session.execute(delete(TaskInstance))
    made: list[KBrokerExecutor] = []

    def start(job: int = JOB, **options: Any) -> KBrokerExecutor:
        given = {
            "broker_url": scene.config.broker.url,
            "executor_lease": 15.0,
            "create_window": 0.3,
            "reconcile_interval": 0.1,
            "check_interval": 0.1,
            "stop_grace": 0.3,
            **options,
        }
        for name, value in given.items():
            monkeypatch.setenv(f"AIRFLOW__KBROKER__{name.upper()}", str(value))
        executor = KBrokerExecutor()
        executor.job_id = job
        executor.start()
        made.append(executor)
        return executor

    yield start
    for executor in made:
        executor.end()


def row(task: str, **values: Any) -> dict[str, Any]:
    """A row of a task instance that this scheduler has queued."""
    return {
        "id": new_id(),
        "dag_id": "dag",
        "task_id": task,
        "run_id": "run",
        "map_index": -1,
        "try_number": 1,
        "state": State.QUEUED,
        "queued_by_job_id": JOB,
        "external_executor_id": str(uuid.uuid4()),
        "queued_dttm": datetime.now(UTC),
        "pool": "default_pool",
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "executor_config": {},
        "dag_version_id": uuid.uuid4(),
        **values,
    }


def put(task: str = "task", **values: Any) -> dict[str, Any]:
    """A row in the database."""
    found = row(task, **values)
    with create_session() as session:
        session.execute(insert(TaskInstance).values(span_status="not_started", **found))
    return found


def change(found: dict[str, Any], **values: Any) -> None:
    """What somebody else does to it."""
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.id == found["id"]).values(**values))


def workload(executor: KBrokerExecutor, found: dict[str, Any]) -> workloads.ExecuteTask:
    """What Airflow's scheduler makes of a row."""
    ti = workloads.TaskInstance.model_validate(found)
    made = workloads.ExecuteTask(
        ti=ti,
        dag_rel_path="dag.py",
        bundle_info={"name": "dags-folder"},
        log_path="dag/run/task/1.log",
        token="",
    )
    return with_fresh_token(made, executor.jwt_generator)


def queue(executor: KBrokerExecutor, found: dict[str, Any]) -> TaskInstanceKey:
    """Hand a row over as the scheduler does; the executor may give the launch another name."""
    with create_session() as session:
        executor.queue_workload(workload(executor, found), session=session)
        which = select(TaskInstance.external_executor_id).where(TaskInstance.id == found["id"])
        found["external_executor_id"] = session.scalar(which)
    return TaskInstanceKey("dag", found["task_id"], "run", found["try_number"], found["map_index"])


def launched(executor: KBrokerExecutor, scene: Scene, found: dict[str, Any]) -> LaunchMessage:
    """Queue and publish it; its message."""
    key = queue(executor, found)
    executor.heartbeat()
    return next(m for m in scene.queued() if m.attempt.launch.key == task_key(key))


def events(executor: KBrokerExecutor) -> dict[Any, Any]:
    """Those of one turn of the scheduler's loop."""
    executor.heartbeat()
    return executor.get_event_buffer()


def ended(executor: KBrokerExecutor, key: TaskInstanceKey) -> tuple[Any, Any]:
    """How it ended."""

    def over() -> Any:
        state, info = events(executor).get(key, (None, None))
        return (state, info) if state in (State.SUCCESS, State.FAILED) else None

    return poll(f"{key} has ended", over)


def test_a_task_from_queueing_to_its_removed_pod(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    executor = make()
    found = put(external_executor_id="8ea55c07-6dcb-4db1-9b4c-4ac10a2d5b1a")
    key = queue(executor, found)
    assert executor.slots_available == 7
    executor.heartbeat()
    assert executor.queued_tasks == {}
    assert executor.running == {key}
    assert executor.get_event_buffer() == {key: (State.QUEUED, found["external_executor_id"])}
    (message,) = scene.queued()
    assert message.attempt.launch.launch_id == found["external_executor_id"]
    assert message.command[:4] == (
        "python",
        "-m",
        "airflow.sdk.execution_time.execute_workload",
        "--json-string",
    )
    scene.launched(message.attempt)
    poll(
        "it runs", lambda: events(executor) == {key: (State.RUNNING, found["external_executor_id"])}
    )
    scene.watched(scene.pod(message.attempt, PodState.SUCCEEDED, exit_code=0))
    executor.heartbeat()
    executor.heartbeat()
    assert executor.running == set()
    # The scheduler has not heard of it: it may die now, and its successor needs the pod.
    assert scene.removals() == []
    assert executor.get_event_buffer() == {key: (State.SUCCESS, "succeeded")}
    executor.heartbeat()
    executor.heartbeat()
    assert [r["removal"] for r in scene.removals()] == ["delete"]


def test_a_failure_says_why_and_so_does_the_event_log(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    executor = make(relaunch_limit=1)
    message = launched(executor, scene, put())
    key = next(iter(executor.running))
    scene.take(message.attempt)
    scene.report(
        given_up(message, Cause.QUOTA, "no room in the namespace").changed(state=PodState.WAITING)
    )
    scene.watched(failed(scene, message.attempt, Cause.IMAGE_PULL, Started.NEVER))

    def again() -> list[LaunchMessage]:
        executor.heartbeat()
        return [m for m in scene.queued() if m.attempt.number == 2]

    (second,) = poll("it is launched again", again)
    scene.take(second.attempt)
    scene.watched(scene.pod(second.attempt, PodState.RUNNING, started=Started.YES))
    scene.watched(
        scene.pod(
            second.attempt,
            PodState.FAILED,
            started=Started.YES,
            cause=Cause.OOM_KILLED,
            exit_code=137,
            message="the container used more memory than its limit",
        )
    )
    state, info = ended(executor, key)
    assert state == State.FAILED
    assert info == (
        "oom_killed, exit code 137 after 2 attempts: the container used more memory than its limit"
    )
    logged = [(log.event, log.extra) for log in executor._task_event_logs]
    assert [event for event, _ in logged] == ["launch waits", "launched again", "launch failed"]
    assert "no room in the namespace" in logged[0][1]
    assert "uses up no try" in logged[1][1]


@pytest.mark.parametrize(
    "config",
    [{"pod_overide": {}}, {"KubernetesExecutor": {"request_memory": "much"}}],
)
def test_an_unusable_executor_config_fails_its_task_alone(
    scene: Scene, make: Callable[..., KBrokerExecutor], config: dict[str, Any]
) -> None:
    executor = make()
    bad = queue(executor, put("bad", executor_config=config))
    good = queue(executor, put("good"))
    executor.heartbeat()
    told = executor.get_event_buffer()
    assert told[bad][0] == State.FAILED
    assert "executor_config" in told[bad][1]
    assert told[good][0] == State.QUEUED
    assert executor.running == {good}


def test_a_resumed_task_is_another_launch_beside_its_first_pod(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    """A deferral keeps key, try and id of the task instance."""
    executor = make()
    found = put()
    first = launched(executor, scene, found)
    scene.launched(first.attempt)
    executor.heartbeat()
    resumed = {**found, "external_executor_id": str(uuid.uuid4())}
    change(found, external_executor_id=resumed["external_executor_id"])
    key = queue(executor, resumed)
    executor.heartbeat()
    (second,) = [m for m in scene.queued() if m.attempt != first.attempt]
    scene.watched(scene.pod(first.attempt, PodState.SUCCEEDED, exit_code=0))
    for _ in range(3):
        assert events(executor).get(key, (State.QUEUED,))[0] == State.QUEUED
    assert executor.running == {key}
    poll("the first pod goes", lambda: (executor.heartbeat(), scene.removals())[1])
    scene.launched(second.attempt)
    scene.watched(scene.pod(second.attempt, PodState.SUCCEEDED, exit_code=0))
    assert ended(executor, key)[0] == State.SUCCESS


def test_without_a_name_from_airflow_a_launch_gets_one_in_the_same_transaction(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    """As before Airflow 3.2, and where several executors are configured."""
    executor = make()
    found = put(external_executor_id=None)
    message = launched(executor, scene, found)
    with create_session() as session:
        named = session.scalar(select(TaskInstance.external_executor_id))
    assert message.attempt.launch.launch_id == named


def test_a_token_that_expired_is_minted_anew(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    executor = make()
    message = launched(executor, scene, put())
    assert message.expires_at is not None
    life = message.expires_at / 1000 - time.time()
    assert 500 < life < 560  # of 600, less a tenth
    scene.drop_entries(message.attempt)
    scene.report(given_up(message, Cause.EXPIRED, "it waited too long"))

    def again() -> list[LaunchMessage]:
        executor.heartbeat()
        return scene.queued("high")

    (renewed,) = poll("it is published again", again)
    assert renewed.attempt == message.attempt
    assert renewed.command[-1] != message.command[-1]
    assert renewed.expires_at >= message.expires_at


def test_a_workload_may_travel_in_a_secret(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    """A renewed one, too."""
    executor = make(workload_delivery="secret")
    found = put()
    message = launched(executor, scene, found)
    assert message.command[-2:] == ("--json-path", "/var/run/kbroker/workload.json")
    assert message.workload is not None
    assert str(found["id"]) in message.workload
    scene.drop_entries(message.attempt)
    scene.report(given_up(message, Cause.EXPIRED, "it waited too long"))

    def again() -> list[LaunchMessage]:
        executor.heartbeat()
        return scene.queued("high")

    (renewed,) = poll("it is published again", again)
    assert renewed.command == message.command
    assert renewed.workload is not None
    assert renewed.workload != message.workload


# What the database says meanwhile → whether the launch is stopped, what Airflow is told.
UNWANTED = [
    ("cleared while queued", {"id": new_id(), "state": None, "external_executor_id": None}, []),
    ("marked failed", {"state": State.FAILED}, []),
    ("marked success", {"state": State.SUCCESS}, []),
    ("queued anew", {"external_executor_id": str(uuid.uuid4())}, []),
    ("the next try", {"id": new_id(), "try_number": 2, "state": State.QUEUED}, []),
    ("cleared while running", {"id": new_id(), "state": State.RESTARTING}, [State.SUCCESS]),
]


@pytest.mark.parametrize(("name", "meanwhile", "told"), UNWANTED, ids=[n for n, *_ in UNWANTED])
@pytest.mark.parametrize("started", [False, True], ids=["waiting", "running"])
def test_what_the_database_wants_no_more_is_stopped(
    scene: Scene, make: Callable[..., KBrokerExecutor], name, meanwhile, told, started
) -> None:
    executor = make()
    found = put()
    message = launched(executor, scene, found)
    key = next(iter(executor.running))
    if started:
        scene.launched(message.attempt)
        poll("it runs", lambda: key in events(executor))
    executor.get_event_buffer()
    change(found, **meanwhile)
    heard: list[Any] = []

    def gone() -> bool:
        heard.extend(state for state, _ in events(executor).values())
        return scene.record(message.attempt)["state"] == "withdrawn"

    poll("the launch is withdrawn", gone)
    heard.extend(state for state, _ in events(executor).values())
    assert heard == told
    assert executor.running == set()
    if started:
        assert [r["removal"] for r in scene.removals()] == ["delete"]


def test_what_is_wanted_goes_on(scene: Scene, make: Callable[..., KBrokerExecutor]) -> None:
    executor = make()
    found = put()
    message = launched(executor, scene, found)
    scene.launched(message.attempt)
    change(found, state=State.RUNNING)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        executor.heartbeat()
        time.sleep(0.05)
    assert scene.record(message.attempt)["state"] == "wanted"
    assert len(executor.running) == 1


@pytest.mark.skipif(not KBrokerExecutor.supports_callbacks, reason="not before Airflow 3.3")
def test_a_callback_runs_in_a_pod_and_is_told_by_its_own_key(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    executor = make()
    one = str(uuid.uuid4())
    callback = workloads.ExecuteCallback(
        callback={"id": one, "fetch_method": "import_path", "data": {"path": "some.function"}},
        dag_rel_path="dag.py",
        bundle_info={"name": "dags-folder"},
        log_path=f"executor_callbacks/dag/run/{one}",
        token="",
    )
    with create_session() as session:
        executor.queue_workload(callback, session=session)
    executor.heartbeat()
    (message,) = scene.queued()
    assert message.attempt.launch.key.dag_id == "dag"
    scene.launched(message.attempt)
    scene.watched(scene.pod(message.attempt, PodState.SUCCEEDED, exit_code=0))
    told: dict[Any, Any] = {}
    poll("it has ended", lambda: told.update(events(executor)) or not executor.running)
    told.update(executor.get_event_buffer())
    assert told == {callback.key: ("success", "succeeded")}
    poll("its pod goes", lambda: (executor.heartbeat(), scene.removals())[1])


def test_a_revoked_task_leaves_nothing(scene: Scene, make: Callable[..., KBrokerExecutor]) -> None:
    executor = make()
    message = launched(executor, scene, put())
    key = next(iter(executor.running))
    executor.revoke_task(ti=SimpleNamespace(key=key, **key._asdict()))
    assert executor.running == set()
    assert not executor.has_task(SimpleNamespace(id=None, key=key))
    assert events(executor) == {}
    assert scene.record(message.attempt)["state"] == "withdrawn"


def adoptable(found: dict[str, Any], **values: Any) -> Any:
    """A task instance as the scheduler finds it in the database."""
    terms = {
        **found,
        "dag_model": SimpleNamespace(bundle_name="dags-folder", relative_fileloc="dag.py"),
        "dag_run": SimpleNamespace(bundle_version=None, context_carrier={}),
        "context_carrier": {},
        **values,
    }
    names = ("dag_id", "task_id", "run_id", "try_number", "map_index")
    return SimpleNamespace(**terms, key=TaskInstanceKey(*(terms[name] for name in names)))


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of log files, which need a whole DAG run."""
    monkeypatch.setattr(
        "airflow.utils.helpers.log_filename_template_renderer", lambda: lambda ti: "some.log"
    )


@pytest.mark.usefixtures("rendered")
class TestAdoption:
    def test_what_ran_is_adopted_once_its_executor_is_dead(
        self, scene: Scene, make: Callable[..., KBrokerExecutor]
    ) -> None:
        found = put()
        first = make(1, executor_lease=2.0)
        message = launched(first, scene, found)
        scene.launched(message.attempt)
        first.heartbeat()
        second = make(2)
        change(found, queued_by_job_id=2, state=State.RUNNING)
        # The first one is silent from now on, and its lease is not over.
        ti = adoptable(found, state=State.RUNNING)
        assert second.try_adopt_task_instances([ti]) == []
        assert second.running == {ti.key}
        scene.watched(scene.pod(message.attempt, PodState.SUCCEEDED, exit_code=0))
        assert ended(second, ti.key) == (State.SUCCESS, "succeeded")
        assert scene.queued() == []

    def test_what_was_never_published_is_launched_with_a_fresh_token(
        self, scene: Scene, make: Callable[..., KBrokerExecutor]
    ) -> None:
        found = put(queued_by_job_id=2)
        executor = make(2)
        ti = adoptable(found)
        assert executor.try_adopt_task_instances([ti]) == []

        def published() -> list[LaunchMessage]:
            scene.bookmark()
            executor.heartbeat()
            return scene.queued()

        (message,) = poll("it is published", published)
        assert message.attempt.launch.launch_id == found["external_executor_id"]
        assert message.expires_at is not None

    def test_what_had_started_and_is_gone_fails_and_is_not_run_again(
        self, scene: Scene, make: Callable[..., KBrokerExecutor]
    ) -> None:
        found = put(queued_by_job_id=2, state=State.RUNNING)
        executor = make(2)
        ti = adoptable(found)
        assert executor.try_adopt_task_instances([ti]) == []

        def over() -> Any:
            scene.bookmark()
            return events(executor).get(ti.key)

        state, info = poll("it has failed", over)
        assert state == State.FAILED
        assert "nobody saw how it ended" in info
        assert scene.queued() == []

    @pytest.mark.parametrize(("state", "launches"), [(State.RUNNING, 0), (State.QUEUED, 1)])
    def test_another_executors_task_is_left_alone_once_it_runs(
        self, scene: Scene, make: Callable[..., KBrokerExecutor], state: State, launches: int
    ) -> None:
        """As after a change from KubernetesExecutor, which notes its job's number."""
        found = put(queued_by_job_id=2, state=state, external_executor_id="1")
        executor = make(2)
        ti = adoptable(found)
        assert executor.try_adopt_task_instances([ti]) == []
        change(found, external_executor_id=ti.external_executor_id)  # as the scheduler does
        assert len(executor.running) == launches

        def published() -> bool:
            scene.bookmark()
            executor.heartbeat()
            return len(scene.queued()) == launches

        poll("what is to be launched is", published)

    def test_to_adopt_twice_is_to_adopt_once(
        self, scene: Scene, make: Callable[..., KBrokerExecutor]
    ) -> None:
        executor = make(2)
        ti = adoptable(put(queued_by_job_id=2))
        for _ in range(2):
            assert executor.try_adopt_task_instances([ti]) == []
        assert executor.running == {ti.key}


def test_a_scheduler_without_redis_starts_and_goes_on_when_it_comes(
    make: Callable[..., KBrokerExecutor],
) -> None:
    with EmbeddedRedis() as before:
        port, url = before.port, before.url
    executor = make(broker_url=url)
    key = queue(executor, put())
    executor.heartbeat()
    assert executor.running == {key}
    assert executor.get_event_buffer() == {}
    with EmbeddedRedis(port):
        poll("it is published", lambda: events(executor).get(key))
        executor.end()


def test_a_dump_says_why_each_waits(
    scene: Scene, make: Callable[..., KBrokerExecutor], capfd: pytest.CaptureFixture[str]
) -> None:
    executor = make()
    message = launched(executor, scene, put())
    executor.debug_dump()
    assert (
        f"launch {message.attempt.launch.launch_id}: waits for a launcher" in capfd.readouterr().out
    )


def test_a_log_that_nobody_has_yet_says_why(
    scene: Scene, make: Callable[..., KBrokerExecutor]
) -> None:
    """As Airflow's API server asks: by an executor that was never started."""
    executor = make()
    reader = KBrokerExecutor()
    never = SimpleNamespace(**row("never", external_executor_id=None))
    assert reader.get_task_log(never, 1) == (
        ["kbroker was not asked to run try 1 of this task yet"],
        [""],
    )
    found = put()
    launched(executor, scene, found)
    messages, logs = reader.get_task_log(SimpleNamespace(**found), 1)
    assert "No launcher is running" in " ".join(messages)
    assert logs == [""]


def test_what_a_dead_scheduler_left_goes_once_its_task_has_ended(
    scene: Scene, make: Callable[..., KBrokerExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended for the database, which tells no executor; the rest is for Airflow to adopt."""
    monkeypatch.setenv("AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL", "0.1")
    first = make(1, check_interval=60)
    found = {name: put(name) for name in ("finished", "runs", "wanted")}
    messages = {name: launched(first, scene, row) for name, row in found.items()}
    for message in messages.values():
        scene.launched(message.attempt)
    scene.watched(scene.pod(messages["finished"].attempt, PodState.SUCCEEDED, exit_code=0))
    change(found["finished"], state=State.SUCCESS)
    change(found["runs"], state=State.FAILED)
    change(found["wanted"], state=State.RUNNING)
    scene.redis.delete(scene.keys.executor(first._core.executor_id))  # it is dead
    second = make(2)
    states = {"finished": "final", "runs": "withdrawn", "wanted": "wanted"}

    def as_they_should_be() -> bool:
        second.heartbeat()
        return {n: scene.record(m.attempt)["state"] for n, m in messages.items()} == states

    poll("what nobody wants is ended", as_they_should_be)
    poll("their pods go", lambda: len(scene.removals()) == 2)
    assert second.running == set()
    assert events(second) == {}


def test_a_team_has_options_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__BLUE___KBROKER__BROKER_URL", "redis://blue.example:6379/0")
    monkeypatch.setenv("AIRFLOW__BLUE___KBROKER__NAMESPACE", "blue")
    monkeypatch.setenv("AIRFLOW__BLUE___CORE__PARALLELISM", "4")
    executor = KBrokerExecutor(team_name="blue")
    executor.job_id = 3
    config = executor.options.config
    assert (config.broker.url, config.kubernetes.namespace) == (
        "redis://blue.example:6379/0",
        "blue",
    )
    assert config.core.executor_id == "kbroker-3-blue"
    assert executor.parallelism == 4
