"""KBrokerExecutor: kbroker as an executor of Airflow 3.

An adapter: it turns Airflow's workloads into launches of `kbroker.executor.KubernetesExecutor`,
and what that tells into Airflow's events. It works with Airflow 3.1 and later; see
`airflow/executors/base_executor.py` there for what is expected of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from airflow.configuration import conf
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.executor_loader import ExecutorLoader
from airflow.executors.workloads import ExecuteTask

from kbroker.airflow import cli, task_logs, workload
from kbroker.airflow.adoption import Adoption
from kbroker.airflow.database import name_launch, rows_of
from kbroker.airflow.identity import callback_key, is_launch_id, new_launch_id, task_key
from kbroker.airflow.launches import Wanted, WantedLaunches
from kbroker.airflow.leftovers import Leftovers
from kbroker.airflow.metrics import timer
from kbroker.airflow.options import SECTION, AirflowOptions
from kbroker.airflow.overrides import plain_config
from kbroker.airflow.problems import problem
from kbroker.airflow.states import state_of
from kbroker.airflow.supervision import Supervision
from kbroker.errors import BrokerUnavailableError, ExecutorConfigError, KbrokerError, TaskError
from kbroker.event import Outcome, PodEvent
from kbroker.event_buffer import QUEUED, RUNNING
from kbroker.executor import KubernetesExecutor
from kbroker.left_behind import LeftBehind
from kbroker.message import LaunchRequest
from kbroker.renewal import Renewal
from kbroker.task import Launch, TaskKey
from kbroker.task_state import Step


class KBrokerExecutor(BaseExecutor):  # type: ignore[misc] # Airflow is untyped for us
    """Runs Airflow's tasks as Kubernetes pods through the broker.

    Nothing is connected before `start`: Airflow's API server makes one to read logs.
    """

    supports_ad_hoc_ti_run = True
    supports_multi_team = True
    # Since 3.3 the command that runs a task runs a callback too.
    supports_callbacks = hasattr(BaseExecutor, "run_workload")
    pre_assigns_external_executor_id = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parallelism = int(self.conf.get("core", "parallelism"))
        self._launches = WantedLaunches()
        self._launch_ids: dict[Any, str] = {}
        # Final states that were told but not handed out yet; and those that were.
        self._ended: dict[Any, TaskKey] = {}
        self._handed_out: list[TaskKey] = []
        self._core: KubernetesExecutor | None = None

    @property
    def options(self) -> AirflowOptions:
        """What Airflow's configuration says.

        Raises:
            ConfigError: a value is not usable, or no Redis is named.
        """

        def get(name: str) -> str | None:
            value: str | None = self.conf.get(SECTION, name, fallback=None)
            return value

        # No two schedulers have the same job, and no two teams the same name.
        parts = (AirflowOptions.read(get).config.core.deployment, self.job_id, self.team_name)
        name = "-".join(str(part) for part in parts if part is not None)
        return AirflowOptions.read(get, executor_id=name)

    # Life.

    def start(self) -> None:
        """Take this executor's place in Redis; without Redis, as soon as it is there.

        Raises:
            ConfigError: the configuration is not usable.
            LeaseLostError: another process has the same deployment and job id.
        """
        options = self.options
        self._delivery = options.workload_delivery
        self._core = core = KubernetesExecutor(
            options.config, renew=self._renew, observe=self._observe
        )
        self._adoption = Adoption(core)
        self._supervision = Supervision(
            self._launches,
            self.job_id,
            interval=options.check_interval,
            grace=options.stop_grace,
            stop=self._stop,
            let_go=self._forget,
            rows=rows_of,
        )
        self._leftovers = Leftovers(
            LeftBehind(core.scheduler),
            interval=conf.getfloat("scheduler", "orphaned_tasks_check_interval"),
            grace=options.stop_grace,
            rows=rows_of,
        )
        # Airflow names the launches of tasks whose executor it recognises by its full name alone.
        self._names_launches = len(ExecutorLoader.get_executor_names()) > 1
        try:
            core.start()
        except BrokerUnavailableError as error:
            self.log.warning("%s; tasks wait in the scheduler until Redis is back", error)

    def end(self) -> None:
        """Leave; what runs goes on, and another scheduler adopts it."""
        if self._core is not None:
            self._core.end()
            self._core = None

    def terminate(self) -> None:
        """The same: that a scheduler stops is no reason to stop tasks."""
        self.end()

    # What the scheduler wants.

    def queue_workload(self, workload: Any, session: Any) -> None:
        """Take a workload that Airflow has queued, and see that its launch has a name."""
        super().queue_workload(workload, session)
        if not isinstance(workload, ExecuteTask):
            return
        launch_id = getattr(workload.ti, "external_executor_id", None)
        if launch_id is None or self._names_launches:
            launch_id = new_launch_id()
            if session is not None:
                name_launch(session, workload.ti.id, launch_id)
        self._launch_ids[workload.ti.key] = launch_id

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        """Hand workloads over; they are published by the next `sync`."""
        for item in workload_items:
            if isinstance(item, ExecuteTask):
                key, of = item.ti.key, task_key(item.ti)
                del self.queued_tasks[key]
                launch_id = self._launch_ids.pop(key, None) or new_launch_id()
                wanted = Wanted(key, of, launch_id, item, item.ti.id)
            else:
                # A callback that Airflow queues again after a crash is another launch.
                key = item.callback.key
                del self.queued_callbacks[key]
                wanted = Wanted(key, callback_key(item), new_launch_id(), item)
            self._launch(wanted)

    def _launch(self, wanted: Wanted) -> None:
        self._want(wanted)
        self._withhold(wanted.key)
        try:
            request = self._request(wanted)
            self._started.execute_async(
                request.key,
                request.command,
                request.queue,
                request.executor_config,
                launch_id=request.launch_id,
                expires_at=request.expires_at,
                workload=request.workload,
            )
        except (TaskError, ExecutorConfigError) as error:
            self._launches.remove(wanted)
            self.fail(wanted.key, info=str(error))

    def _withhold(self, key: Any) -> None:
        """What an earlier launch of this key came to is nobody's business any more."""
        self.event_buffer.pop(key, None)
        if (ended := self._ended.pop(key, None)) is not None:
            self._started.let_go(ended)

    def _want(self, wanted: Wanted) -> None:
        self._launches.add(wanted)
        self.running.add(wanted.key)

    def _request(self, wanted: Wanted, **terms: Any) -> LaunchRequest:
        """What the core is asked for.

        Raises:
            ExecutorConfigError: the task's `executor_config` is not usable.
        """
        item = wanted.workload
        about = getattr(item, "ti", None)
        command, document = workload.run(item, self._delivery)
        return LaunchRequest(
            wanted.task_key,
            command,
            wanted.launch_id,
            getattr(about, "queue", None),
            plain_config(getattr(about, "executor_config", None)),
            workload.expires_at(item.token),
            workload=document,
            **terms,
        )

    def _renew(self, launch: Launch) -> Renewal | None:
        wanted = self._launches.of(launch.key, launch.launch_id)
        if wanted is None or wanted.workload is None:
            return None
        wanted.workload = workload.with_fresh_token(wanted.workload, self.jwt_generator)
        command, document = workload.run(wanted.workload, self._delivery)
        return Renewal(command, workload.expires_at(wanted.workload.token), document)

    def revoke_task(self, *, ti: Any) -> None:
        """Stop wanting a task instance; no event follows."""
        self.queued_tasks.pop(ti.key, None)
        self._launch_ids.pop(ti.key, None)
        self._withhold(ti.key)
        key = task_key(ti)
        if (wanted := self._launches.of(key)) is not None:
            self._forget(wanted)
        self.running.discard(ti.key)
        self._started.revoke(key, "revoked by Airflow's scheduler")

    def _stop(self, wanted: Wanted, reason: str, *, awaited: bool) -> None:
        self.log.info("%s is stopped: %s", wanted.key, reason)
        self._forget(wanted)
        self._started.revoke(wanted.task_key, reason)
        if awaited:
            # Of a cleared task Airflow makes "terminated, run it again" of a success alone.
            self.success(wanted.key, info=reason)

    def _forget(self, wanted: Wanted) -> None:
        self._adoption.forget(wanted.launch_id)
        self._launches.remove(wanted)
        self.running.discard(wanted.key)

    # The scheduler's loop.

    def sync(self) -> None:
        """One turn: publish, take in what happened, see what is still wanted.

        Raises:
            LeaseLostError: another process has the same deployment and job id.
        """
        # Whatever was handed out in the last turn is in Airflow's database by now.
        for key in self._handed_out:
            self._started.let_go(key)
        self._handed_out.clear()
        self._started.heartbeat()
        for key, (state, info) in self._started.get_event_buffer(keep_pods=True).items():
            self._tell(key, state, info)
        self._adoption.turn()
        self._supervision.turn()
        self._leftovers.turn()

    def _tell(self, key: TaskKey, state: str, info: str | Outcome) -> None:
        launch_id = info.launch_id if isinstance(info, Outcome) else info
        wanted = self._launches.of(key, launch_id)
        if wanted is None:
            self._started.let_go(key)
            return
        # Before it ends Airflow takes the info for its external_executor_id.
        told: str = str(info) if isinstance(info, Outcome) else launch_id
        if state in (QUEUED, RUNNING):
            if state == RUNNING:
                wanted.has_started()
            self.event_buffer[wanted.key] = (state_of(wanted.key, state), told)
            return
        self._launches.remove(wanted)
        self._ended[wanted.key] = key
        self.change_state(wanted.key, state_of(wanted.key, state), told)

    def get_event_buffer(self, dag_ids: Collection[str] | None = None) -> dict[Any, Any]:
        """Hand events out; the pods of what ended may go with the next `sync`."""
        events: dict[Any, Any] = super().get_event_buffer(dag_ids)
        self._handed_out += [self._ended.pop(key) for key in events if key in self._ended]
        return events

    def _observe(self, event: PodEvent, step: Step) -> None:
        launch = event.launch
        wanted = self._launches.of(launch.key, launch.launch_id)
        found = problem(event, step)
        if wanted is not None and found is not None and found.told != wanted.told:
            wanted.told = found.told
            self.log_task_event(event=found.event, extra=found.extra, ti_key=wanted.key)

    # Task instances that another scheduler left behind.

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over task instances; what was never launched is launched now.

        Returns:
            Those of which no workload can be made; Airflow resets them, which costs a try.
        """
        with timer("kubernetes_executor.adopt_task_instances.duration", self.team_name):
            refused, requests = [], []
            for ti in tis:
                try:
                    request = self._adopted(ti)
                except (KbrokerError, ValueError) as error:
                    self.log.error("%s cannot be adopted: %s", ti.key, error)
                    refused.append(ti)
                    continue
                if request is not None:
                    requests.append(request)
            self._adoption.ask(requests)
        return refused

    def _adopted(self, ti: Any) -> LaunchRequest | None:
        """What to ask the core for; None where there is nothing to ask."""
        started = ti.state not in ("queued", "scheduled", None)
        if not is_launch_id(ti.external_executor_id):
            if started:
                self.log.info("%s was launched by another executor, and is left to itself", ti.key)
                return None
            ti.external_executor_id = new_launch_id()
        key = task_key(ti)
        if self._launches.of(key, ti.external_executor_id) is not None:
            return None
        item = ExecuteTask.make(ti, generator=self.jwt_generator)
        wanted = Wanted(ti.key, key, ti.external_executor_id, item, ti.id)
        queued_at = None if ti.queued_dttm is None else ti.queued_dttm.timestamp()
        request = self._request(wanted, queued_at=queued_at, started=started)
        if started:
            wanted.has_started()
        self._want(wanted)
        return request

    # What users see.

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """The end of a pod's log, by way of a launcher; or why there is none.

        Returns:
            Sentences about it, and the log.
        """
        try:
            messages, text = task_logs.read(self.options, ti, try_number)
        except KbrokerError as error:
            messages, text = [f"kbroker does not say: {error}"], ""
        return messages, [text]

    def debug_dump(self) -> None:
        """Write into the scheduler's log what is wanted, and why it waits."""
        super().debug_dump()
        if self._core is None:
            return
        lines = [
            f"{wanted.key} launch {wanted.launch_id}: "
            f"{'running' if wanted.started else self._core.waiting(wanted.task_key) or 'unknown'}"
            for wanted in self._launches
        ]
        self.log.info("executor.launches (%d)\n\t%s", len(lines), "\n\t".join(lines))
        self.log.info("executor.adopting (%d)", len(self._adoption))

    @staticmethod
    def get_cli_commands() -> list[Any]:
        """`airflow kbroker …`."""
        return cli.get_cli_commands()

    @property
    def _started(self) -> KubernetesExecutor:
        if self._core is None:
            raise RuntimeError("start() was not called, or end() was")
        return self._core
