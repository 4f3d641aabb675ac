"""The names an attempt's pod carries: pod name, labels, annotations, selectors.

Annotations hold exact values and are the only source an attempt is read back
from; labels hold values made safe for selecting. Label values and date strings
are those of Airflow's Kubernetes provider, so that dashboards and selectors
written for it keep working.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from kbroker.errors import TaskError
from kbroker.task import Attempt, Launch, TaskKey

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
POD_NAME_MAX = 63  # a DNS label, so that the name is also the pod's hostname
POD_ID_MAX = 253  # a DNS subdomain: what the API server accepts as a pod's name
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
LABEL_VALUE_MAX = 63
_DIGEST_LENGTH = 20
_LABEL_HASH_LENGTH = 9

_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_SAFE_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_UNSAFE_IN_VALUE = re.compile(r"[^-A-Za-z0-9_.]")

MANAGED_BY = "app.kubernetes.io/managed-by"
DEPLOYMENT = "kbroker/deployment"  # label (safe) and annotation (exact)
LAUNCH_ID = "kbroker/launch-id"
ATTEMPT = "kbroker/attempt"
EXECUTOR = "kbroker/executor"
CREATE_BEFORE = "kbroker/create-before"
WAITS = "kbroker/waits"  # what it waits for that its own status does not say
STOPPED = "kbroker/stopped"  # why it was stopped before it started: "cause: message"
# Nobody else's deletion frees a pod's name, or takes away what became of it, before kbroker
# has taken note: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
FINALIZER = "kbroker/tracking"


@lru_cache(maxsize=4096)
def make_safe_label_value(value: str) -> str:
    """`value` as a valid label value, equal to Airflow's for the same input.

    A valid value stays. Otherwise characters that labels cannot hold go, so does
    everything before the first and after the last letter or digit, and the first 53
    characters are followed by `-` and 9 hex digits of the value's MD5. Where nothing
    remains before the `-` (Airflow: an invalid label), the hex digits stand alone.
    """
    if _SAFE_VALUE.fullmatch(value):
        return value
    digest = hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()[:_LABEL_HASH_LENGTH]
    kept = _UNSAFE_IN_VALUE.sub("", value).strip("-_.")
    return f"{kept[: LABEL_VALUE_MAX - len(digest) - 1]}-{digest}" if kept else digest


def datetime_to_label_safe_datestring(moment: datetime) -> str:
    """ISO 8601 with `:` as `_` and `+` as `_plus_`, as in Airflow's date labels."""
    return moment.isoformat().replace(":", "_").replace("+", "_plus_")


def label_safe_datestring_to_datetime(text: str) -> datetime:
    """Read what `datetime_to_label_safe_datestring` wrote.

    Raises:
        ValueError: it is no ISO 8601 date.
    """
    return datetime.fromisoformat(text.replace("_plus_", "+").replace("_", ":"))


def strip_unsafe_kubernetes_special_chars(text: str) -> str:
    """The ASCII letters and digits of `text` in lower case; possibly nothing.

    Airflow 1.10 kept letters and digits of any script here, which no pod name may
    contain; these go too.
    """
    return "".join(letter for letter in text.lower() if letter.isascii() and letter.isalnum())


def make_safe_pod_id(safe_dag_id: str, safe_task_id: str, safe_uuid: str) -> str:
    """A pod name of at most 253 characters in Airflow 1.10's style: ids, `-`, uuid.

    The ids are cut so that the uuid fits. Anything unsafe in the arguments is
    dropped; a uuid keeps its inner hyphens. Valid for any input, "task" if nothing is
    left of it. kbroker's own pods are named by `pod_name`.
    """
    suffix = _NOT_SLUG.sub("-", safe_uuid.lower()).strip("-")[:POD_ID_MAX].rstrip("-")
    ids = create_pod_id(safe_dag_id, safe_task_id)[: max(0, POD_ID_MAX - len(suffix) - 1)]
    return "-".join(part for part in (ids, suffix) if part) or "task"


def create_pod_id(dag_id: str, task_id: str) -> str:
    """The DAG's and the task's id, stripped to letters and digits, one after the other."""
    return strip_unsafe_kubernetes_special_chars(dag_id) + strip_unsafe_kubernetes_special_chars(
        task_id
    )


def pod_name(attempt: Attempt) -> str:
    """The attempt's one possible pod name: readable slug, `-`, 20 hex digits.

    A DNS label (RFC 1123) for any ids. The digits are of the attempt's digest: equal
    attempts share a name, different ones do not.
    """
    key = attempt.launch.key
    slug = _NOT_SLUG.sub("-", f"{key.dag_id}-{key.task_id}".lower())
    slug = slug.strip("-")[: POD_NAME_MAX - _DIGEST_LENGTH - 1].rstrip("-")
    return f"{slug or 'task'}-{attempt.digest[:_DIGEST_LENGTH]}"


def labels_for(attempt: Attempt, executor_id: str) -> dict[str, str]:
    """The labels to select an attempt's pod by.

    `map_index` and `logical_date` are there, as in Airflow, only for tasks that have one.
    """
    launch = attempt.launch
    key = launch.key
    labels = {
        "dag_id": make_safe_label_value(key.dag_id),
        "task_id": make_safe_label_value(key.task_id),
        "run_id": make_safe_label_value(key.run_id),
        "try_number": str(key.try_number),
        "airflow-worker": make_safe_label_value(executor_id),
        "kubernetes_executor": "True",
        MANAGED_BY: "kbroker",
        DEPLOYMENT: make_safe_label_value(launch.deployment),
    }
    if key.map_index >= 0:
        labels["map_index"] = str(key.map_index)
    if key.logical_date is not None:
        labels["logical_date"] = _date_label(key.logical_date)
    return labels


def _date_label(date: str) -> str:
    try:
        return make_safe_label_value(
            datetime_to_label_safe_datestring(datetime.fromisoformat(date))
        )
    except ValueError:
        return make_safe_label_value(date)


def annotations_for(attempt: Attempt, executor_id: str) -> dict[str, str]:
    """The exact values that `attempt_from_annotations` reads back."""
    launch = attempt.launch
    key = launch.key
    annotations = {
        "dag_id": key.dag_id,
        "task_id": key.task_id,
        "run_id": key.run_id,
        "try_number": str(key.try_number),
        "map_index": str(key.map_index),
        DEPLOYMENT: launch.deployment,
        LAUNCH_ID: launch.launch_id,
        ATTEMPT: str(attempt.number),
        EXECUTOR: executor_id,
    }
    if key.logical_date is not None:
        annotations["logical_date"] = key.logical_date
    return annotations


def attempt_from_annotations(annotations: Mapping[str, str]) -> Attempt | None:
    """Whose pod this is; None if it is not kbroker's or its annotations are unreadable."""
    try:
        key = TaskKey(
            annotations["dag_id"],
            annotations["task_id"],
            annotations["run_id"],
            _integer(annotations["try_number"]),
            _integer(annotations["map_index"]),
            annotations.get("logical_date"),
        )
        launch = Launch(annotations[DEPLOYMENT], key, annotations[LAUNCH_ID])
        return launch.attempt(_integer(annotations[ATTEMPT]))
    except (KeyError, ValueError, TypeError, TaskError):
        return None


def _integer(text: str) -> int:
    number = int(text)
    # int() also reads "1_0", " 1" and other scripts' digits, none of which we write.
    if str(number) != text:
        raise ValueError(f"not a plain integer: {text!r}")
    return number


def create_before_annotation(moment: int) -> str:
    """RFC 3339 in UTC with milliseconds, of `moment` in milliseconds since the epoch."""
    seconds, milliseconds = divmod(moment, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def deployment_selector(deployment: str) -> str:
    """The label selector of one deployment's pods."""
    return f"kubernetes_executor=True,{DEPLOYMENT}={make_safe_label_value(deployment)}"
