"""An Airflow of this process' own: a home, and a database without anything in it.

To be imported before anything of Airflow: that reads its settings when it is imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_home = tempfile.mkdtemp(prefix="kbroker-airflow-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ.update(
    AIRFLOW_HOME=_home,
    AIRFLOW__CORE__EXECUTOR="kbroker.airflow.KBrokerExecutor",
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__PARALLELISM="8",
    AIRFLOW__API_AUTH__JWT_SECRET="only-for-tests-" * 5,
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_home}/airflow.db",
)


def make_tables() -> None:
    """The tables of Airflow's models, without constraints that other tests' rows would need."""
    from airflow import models, settings  # noqa: PLC0415
    from airflow.models.base import Base  # noqa: PLC0415
    from sqlalchemy import event  # noqa: PLC0415

    models.import_all_models()
    event.listen(settings.engine, "connect", lambda db, _: db.execute("PRAGMA foreign_keys=OFF"))
    settings.engine.dispose()
    Base.metadata.create_all(settings.engine)
