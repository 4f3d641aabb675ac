"""One Airflow installation for all tests: to start it costs half a minute of CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.airflow.site import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Airflow with kbroker, all up, its DAGs parsed."""
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running
