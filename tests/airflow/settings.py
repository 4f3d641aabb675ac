"""What the processes of a site are told: Airflow's own, and the pods of its tasks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.airflow.site import Site

HERE = Path(__file__).parent
EXECUTOR = "kbroker.airflow.KBrokerExecutor"
NAMESPACE = "default"
DEPLOYMENT = "test-airflow"

# Seconds. What the tests wait for follows from these.
CREATE_WINDOW = 12.0
HEALTH_THRESHOLD = 20
ORPHANS_EVERY = 3

# Tasks that run at once: each costs about four seconds of CPU before it does anything.
PARALLELISM = 8

# Each kind of settings: section → option → value.
Sections = dict[str, dict[str, Any]]


def inherited() -> dict[str, str]:
    """The environment without what would change the configuration of what is tested."""
    ours = ("AIRFLOW", "KBROKER", "KUBECONFIG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def of_airflow(site: Site) -> dict[str, str]:
    """The environment variables of Airflow's own processes."""
    sections = _airflow(site)
    sections["core"] |= _of_all(site)
    sections["kbroker"] = _kbroker(site)
    return {"AIRFLOW_HOME": str(site.home), **_as_env(sections)}


def of_pods(site: Site) -> dict[str, str]:
    """What a task needs: no database, no secret; its token comes with the workload."""
    sections: Sections = {
        "core": _of_all(site),
        # A supervisor may miss that its task has ended, until it is time for a heartbeat.
        "workers": {"min_heartbeat_interval": 2},
        "logging": {"base_log_folder": site.task_logs},
    }
    return {
        # `python` is the interpreter that runs these tests.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "LEDGER": str(site.ledger_path),
        "GATES": str(site.gates),
        "AIRFLOW_HOME": str(site.pod_home),
        **_as_env(sections),
    }


def _of_all(site: Site) -> dict[str, Any]:
    """Of section [core]."""
    return {
        "dags_folder": HERE / "dags",
        "load_examples": False,
        "execution_api_server_url": f"{site.url}/execution/",
    }


def _airflow(site: Site) -> Sections:
    return {
        "core": {
            "executor": ",".join(filter(None, (EXECUTOR, site.other_executor))),
            "dags_are_paused_at_creation": False,
            "parallelism": PARALLELISM,
            "fernet_key": "",
            "simple_auth_manager_all_admins": True,
            "simple_auth_manager_passwords_file": site.home / "passwords",
        },
        "database": {"sql_alchemy_conn": site.database},
        "api": {"base_url": site.url, "secret_key": site.secret},
        "api_auth": {"jwt_secret": site.secret},
        "scheduler": {
            "job_heartbeat_sec": 1,
            "scheduler_heartbeat_sec": 1,
            "scheduler_idle_sleep_time": 0.5,
            "scheduler_health_check_threshold": HEALTH_THRESHOLD,
            "orphaned_tasks_check_interval": ORPHANS_EVERY,
            "trigger_timeout_check_interval": 2,
        },
        "triggerer": {"job_heartbeat_sec": 1},
        "dag_processor": {
            "parsing_processes": 1,
            "min_file_process_interval": 3600,
            "refresh_interval": 3600,
        },
        "logging": {"base_log_folder": site.task_logs},
    }


def _kbroker(site: Site) -> dict[str, Any]:
    core = site.config().core
    return {
        "broker_url": site.redis_server.url,
        "deployment": DEPLOYMENT,
        "namespace": NAMESPACE,
        "create_window": CREATE_WINDOW,
        "relaunch_limit": 1,
        "check_interval": 1,
        # See dags/deaf.py.
        "stop_grace": 1,
        "executor_lease": core.executor_lease,
        "reconcile_interval": core.reconcile_interval,
    }


def _as_env(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Settings as Airflow reads them from the environment."""
    return {
        f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
        for section, options in sections.items()
        for name, value in options.items()
    }
