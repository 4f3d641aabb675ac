"""Airflow's side: kbroker as an executor of Airflow 3.

Airflow is told about it in its configuration, as
`executor = kbroker.airflow.KBrokerExecutor`. The class is imported on first use: what else this
package holds, such as the table of options, needs no Airflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kbroker.errors import MissingExtraError

if TYPE_CHECKING:
    from kbroker.airflow.executor import KBrokerExecutor

__all__ = ["KBrokerExecutor"]

_HOME = {"KBrokerExecutor": "kbroker.airflow.executor"}


def __getattr__(name: str) -> Any:
    """Import the executor on first use.

    Raises:
        MissingExtraError: Airflow is not installed.
        AttributeError: there is no such class.
    """
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'kbroker.airflow' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "airflow":
            raise MissingExtraError(name, "airflow") from error
        raise


def __dir__() -> list[str]:
    return __all__
