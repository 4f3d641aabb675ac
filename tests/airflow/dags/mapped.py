"""Thirty mapped tasks in a pool of six slots, and one that adds up their results."""

from __future__ import annotations

from airflow.sdk import DAG, get_current_context, task
from ledger_writer import recorded

with DAG("mapped"):

    @task(pool="six")
    def square(number: int) -> int:
        with recorded(get_current_context()):
            return number * number

    @task
    def total(squares: list[int]) -> int:
        with recorded(get_current_context()):
            return sum(squares)

    total(square.expand(number=list(range(30))))
