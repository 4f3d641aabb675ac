"""Airflow's workloads: what a pod runs, and for how long its token is good."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from kbroker.airflow.options import SECRET
from kbroker.workload_file import WORKLOAD_FILE

# A pod has to be scheduled, and its image pulled, before the token is shown to anybody: what is
# left of its life by then must be enough.
_SHARE_KEPT = 0.1
_KEPT_AT_MOST = 60.0

_RUN = ("python", "-m", "airflow.sdk.execution_time.execute_workload")


def run(workload: Any, delivery: str) -> tuple[list[str], str | None]:
    """How a workload is run: argv, and what is to travel in a Secret, if anything.

    Args:
        workload: token included.
        delivery: `options.ARGUMENT` or `options.SECRET`.
    """
    document: str = workload.model_dump_json()
    if delivery == SECRET:
        return [*_RUN, "--json-path", WORKLOAD_FILE], document
    return [*_RUN, "--json-string", document], None


def expires_at(token: str) -> float | None:
    """When a workload with this token is not worth launching any more.

    Args:
        token: a JSON web token; it is read, not verified.

    Returns:
        Seconds since the epoch, some time before its end; None when it does not say.
    """
    try:
        body = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        end, begin = float(claims["exp"]), float(claims.get("iat", claims["exp"]))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        return None
    return end - min(_KEPT_AT_MOST, max(0.0, end - begin) * _SHARE_KEPT)


def with_fresh_token(workload: Any, generator: Any) -> Any:
    """The same workload with a token that begins to live now.

    Args:
        workload: an `ExecuteTask` or `ExecuteCallback`.
        generator: Airflow's `JWTGenerator`.
    """
    subject = str(workload.ti.id if hasattr(workload, "ti") else workload.callback.id)
    if hasattr(workload, "generate_token"):
        token = workload.generate_token(subject, generator)
    else:  # Airflow 3.1
        token = generator.generate({"sub": subject})
    return workload.model_copy(update={"token": token})
