"""What Airflow shows as the log of a task that has none of its own yet."""

from __future__ import annotations

from typing import Any

from kbroker.airflow.identity import is_launch_id, task_key
from kbroker.airflow.options import AirflowOptions
from kbroker.errors import KbrokerError
from kbroker.redis_client import connect
from kbroker.task import Launch
from kbroker.task_log import task_log

# How long Airflow's API server waits for a launcher's answer, in seconds.
_WAIT = 3.0
# And for Redis itself.
_PATIENCE = 1.0


def read(options: AirflowOptions, task_instance: Any, try_number: int) -> tuple[list[str], str]:
    """Where the log comes from and what there is to say beside it; and the log's end.

    Args:
        options: where Redis is.
        task_instance: a task instance, or its history, of this try.
        try_number: whose log is wanted.
    """
    launch_id = task_instance.external_executor_id
    if task_instance.try_number != try_number or not is_launch_id(launch_id):
        return [f"kbroker was not asked to run try {try_number} of this task yet"], ""
    launch = Launch(options.config.core.deployment, task_key(task_instance), launch_id)
    client = connect(options.config.broker.url, _PATIENCE)
    try:
        found = task_log(client, options.config, launch, lines=options.log_lines, wait=_WAIT)
    except KbrokerError as error:
        return [f"kbroker does not say: {error}"], ""
    finally:
        client.close()
    return [line for line in (found.source, *found.notes) if line], found.text
