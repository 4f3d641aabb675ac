"""Airflow's REST API, as far as the tests need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

FINAL = {"success", "failed", "skipped", "upstream_failed", "removed"}


class Api:
    """Requests to the API server.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v2", timeout=60)

    def answers(self) -> bool:
        """Whether the API server is up."""
        try:
            return self._client.get("/version").is_success
        except httpx.TransportError:
            return False

    def _request(self, method: str, path: str, **more: Any) -> Any:
        answer = self._client.request(method, path, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code}: {answer.text}"
        return answer.json() if answer.content else None

    def dags(self) -> set[str]:
        """Ids of the DAGs that were parsed."""
        return {dag["dag_id"] for dag in self._request("GET", "/dags")["dags"]}

    def import_errors(self) -> list[str]:
        """What is wrong with DAG files."""
        return [e["stack_trace"] for e in self._request("GET", "/importErrors")["import_errors"]]

    def trigger(self, dag: str, run: str, **conf: Any) -> Run:
        """Start a run."""
        body = {"dag_run_id": run, "logical_date": None, "conf": conf}
        self._request("POST", f"/dags/{dag}/dagRuns", json=body)
        return Run(self._request, dag, run)

    def make_pool(self, name: str, slots: int) -> None:
        """Create a pool."""
        self._request("POST", "/pools", json={"name": name, "slots": slots})


class Run:
    """One DAG run.

    Args:
        request: makes a request: method, path, and httpx' arguments.
        dag: the DAG's id.
        run: the run's id.
    """

    def __init__(self, request: Callable[..., Any], dag: str, run: str) -> None:
        self.dag = dag
        self.run = run
        self._ask = request
        self._path = f"/dags/{dag}/dagRuns/{run}"

    def _task_path(self, task: str, map_index: int = -1) -> str:
        path = f"{self._path}/taskInstances/{task}"
        return path if map_index < 0 else f"{path}/{map_index}"

    def state(self) -> str:
        """The run's state."""
        return str(self._ask("GET", self._path)["state"])

    @property
    def key(self) -> tuple[str, str]:
        """Ids of the DAG and of the run."""
        return self.dag, self.run

    def over(self) -> bool:
        """Whether it has ended."""
        return self.state() in FINAL

    def task_instances(self) -> list[dict[str, Any]]:
        """All task instances."""
        found = self._ask("GET", f"{self._path}/taskInstances", params={"limit": 100})
        return list(found["task_instances"])

    def states(self) -> dict[str, str | None]:
        """Task → state, "task[n]" for a mapped one."""
        return {
            ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]": ti[
                "state"
            ]
            for ti in self.task_instances()
        }

    def task(self, task: str, map_index: int = -1) -> dict[str, Any]:
        """One task instance."""
        return dict(self._ask("GET", self._task_path(task, map_index)))

    def task_state(self, task: str = "gated") -> str | None:
        """The state of one task."""
        state: str | None = self.task(task)["state"]
        return state

    def tries(self, task: str, map_index: int = -1) -> list[dict[str, Any]]:
        """All tries of a task instance, the last one included."""
        found = self._ask("GET", f"{self._task_path(task, map_index)}/tries")
        return list(found["task_instances"])

    def xcom(self, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task has pushed."""
        path = f"{self._path}/taskInstances/{task}/xcomEntries/{key}"
        params = {"map_index": map_index, "deserialize": True}
        return self._ask("GET", path, params=params)["value"]

    def mark(self, task: str, state: str) -> None:
        """Set a task's state."""
        self._ask("PATCH", self._task_path(task), json={"new_state": state})

    def clear(self, task: str) -> None:
        """Clear a task, so that it runs again."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run,
            "task_ids": [task],
            "only_failed": False,
            "only_running": False,
            "reset_dag_runs": True,
        }
        self._ask("POST", f"/dags/{self.dag}/clearTaskInstances", json=body)

    def log(self, task: str, try_number: int = 1, map_index: int = -1) -> str:
        """A task's log, its events one a line."""
        found = self._ask(
            "GET",
            f"{self._path}/taskInstances/{task}/logs/{try_number}",
            params={"map_index": map_index, "full_content": True},
            headers={"Accept": "application/json"},
        )
        return "\n".join(
            line["event"] if isinstance(line, dict) else str(line) for line in found["content"]
        )

    def events(self, task: str) -> list[str]:
        """What the event log says of a task: "event: text", the latest first."""
        params = {"dag_id": self.dag, "run_id": self.run, "task_id": task, "limit": 100}
        found = self._ask("GET", "/eventLogs", params=params)["event_logs"]
        return [f"{event['event']}: {event['extra']}" for event in found]
