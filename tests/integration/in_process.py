"""The command line in this process, against a scene's Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kbroker.cli.main import main
from tests.integration.scene import Scene

Cli = Callable[..., tuple[int, str, str]]


def command(
    name: str, scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Runs `kbroker NAME …`: exit code, standard output, standard error."""
    for variable, value in scene.config.as_env().items():
        monkeypatch.setenv(variable, value)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([name, *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return call
