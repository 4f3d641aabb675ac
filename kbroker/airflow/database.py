"""Airflow's database, as far as an executor reads and writes it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from kbroker.airflow.launches import Wanted
from kbroker.airflow.standing import Row

log = logging.getLogger(__name__)

_COLUMNS = (
    TaskInstance.dag_id,
    TaskInstance.task_id,
    TaskInstance.run_id,
    TaskInstance.map_index,
    TaskInstance.id,
    TaskInstance.state,
    TaskInstance.try_number,
    TaskInstance.external_executor_id,
    TaskInstance.queued_by_job_id,
)
# What a task instance is called whatever its id and try are.
_Name = tuple[str, str, str, int]


def rows_of(launches: Sequence[Wanted]) -> list[Row | None] | None:
    """The row of each one's task instance; None for all when the database does not answer.

    In a session of its own: the scheduler's may be in the middle of something.
    """
    found: dict[_Name, Row] = {}
    try:
        with create_session(scoped=False) as session:
            ids = [_bound(x.task_instance) for x in launches if x.task_instance is not None]
            if ids:
                found.update(_read(session, TaskInstance.id.in_(ids)))
            others = [one.key for one in launches if _name(one) not in found]
            if others:  # they have another id by now, or nobody knows which
                found.update(_read(session, TaskInstance.filter_for_tis(others)))
    except SQLAlchemyError as error:
        log.warning(
            "the database does not say which tasks are still wanted: %s",
            type(error).__name__,
            extra={"action": "standing"},
        )
        return None
    return [found.get(_name(one)) for one in launches]


def name_launch(session: Any, task_instance: Any, launch_id: str) -> None:
    """Say which launch a task instance is queued as, in the transaction that queues it."""
    session.execute(
        update(TaskInstance)
        .where(TaskInstance.id == _bound(task_instance))
        .values(external_executor_id=launch_id)
        .execution_options(synchronize_session=False)
    )


def _read(session: Any, which: Any) -> dict[_Name, Row]:
    rows = session.execute(select(*_COLUMNS).where(which)).all()
    return {tuple(row[:4]): Row(str(row[4]), _text(row[5]), *row[6:]) for row in rows}


def _name(wanted: Wanted) -> _Name:
    key = wanted.task_key
    return key.dag_id, key.task_id, key.run_id, key.map_index


def _bound(task_instance: Any) -> Any:
    """The id as the column's type: text before Airflow 3.2."""
    try:
        kind = TaskInstance.id.type.python_type
    except NotImplementedError:  # SQLAlchemy's word for a type that names no Python type
        kind = str
    return task_instance if isinstance(task_instance, kind) else kind(str(task_instance))


def _text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
