"""Options that several commands share, and the configuration that they add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kbroker.errors import UsageError
from kbroker.kube_config import KubeConfig

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file; also $KBROKER_CONFIG.", metavar="FILE")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override one setting; may be repeated.", metavar="SECTION.KEY=VALUE"
    ),
]
Kubeconfig = Annotated[
    str | None, typer.Option(help="Kubeconfig of the cluster; also $KUBECONFIG.", metavar="FILE")
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace of the pods.", metavar="NAME")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
Wait = Annotated[
    float,
    typer.Option(help="How long to wait for Redis and the cluster to be up.", metavar="SECONDS"),
]


def configuration(
    config: Path | None,
    settings: list[str] | None,
    kubeconfig: str | None = None,
    namespace: str | None = None,
    **more: Any,
) -> KubeConfig:
    """The configuration from file, environment and options.

    Args:
        config: the TOML file.
        settings: "section.key=value" texts.
        kubeconfig: of the cluster.
        namespace: of the pods.
        more: further values, "section__key" → value; None leaves one alone.

    Raises:
        ConfigError: see `KubeConfig.load`.
        UsageError: a setting is not of the form.
    """
    overrides: dict[str, Any] = {
        name.replace("__", "."): value for name, value in more.items() if value is not None
    }
    if kubeconfig is not None:
        overrides["kubernetes.kubeconfig"] = kubeconfig
    if namespace is not None:
        overrides["kubernetes.namespace"] = namespace
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals or "." not in name:
            raise UsageError(f"--set {setting!r}: must be section.key=value")
        overrides[name] = value
    return KubeConfig.load(config, overrides=overrides)
