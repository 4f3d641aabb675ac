"""The list of executors in Airflow's `[core] executor`, with kbroker in it."""

from __future__ import annotations

from kbroker.value import Value

KBROKER = "kbroker.airflow.KBrokerExecutor"
_DEFAULT = "LocalExecutor"
# Airflow 3 has several executors instead of one that is made of two.
_OF_TWO = {
    "CeleryKubernetesExecutor": "CeleryExecutor",
    "LocalKubernetesExecutor": "LocalExecutor",
}


class ExecutorList(Value, frozen=True):
    """What `[core] executor` becomes.

    Attributes:
        text: its new value.
        is_new: whether that is another one.
        decision: what somebody has to decide or do about it; "" for nothing.
    """

    text: str
    is_new: bool
    decision: str = ""


def side_by_side(text: str) -> ExecutorList:
    """The executors of before with kbroker beside them; the first stays the default one.

    Args:
        text: names separated by commas, each perhaps with an alias in front: `Alias:name`; "" for
            Airflow's own default.
    """
    names = [name.strip() for name in (text or _DEFAULT).split(",")]
    classes = [name.rpartition(":")[2].rpartition(".")[2] for name in names]
    if KBROKER.rpartition(".")[2] in classes:
        return ExecutorList(text, is_new=False)
    if ";" in text or "=" in text:
        return ExecutorList(
            text, is_new=False, decision=f"add {KBROKER} by hand to the list of each team"
        )
    of_two = [name for name in classes if name in _OF_TWO]
    kept = [_OF_TWO.get(known, name) for name, known in zip(names, classes, strict=True)]
    new = ",".join([*dict.fromkeys(kept), KBROKER])
    if not of_two:
        return ExecutorList(new, is_new=True)
    return ExecutorList(
        new,
        is_new=True,
        decision=f"Airflow 3 has no {of_two[0]}: instead of a queue, tasks name their executor",
    )
