"""What the pods of many tasks have in common, encoded once; each pod adds its identity.

The identity (name, namespace, kbroker's labels and annotations, the finalizer, what the base
container runs) is what the rest of kbroker finds its pods by: it is written over whatever claims
to be it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from kbroker import workload_file
from kbroker.executor_config import BASE_CONTAINER
from kbroker.message import LaunchMessage
from kbroker.naming import (
    CREATE_BEFORE,
    FINALIZER,
    annotations_for,
    create_before_annotation,
    labels_for,
    pod_name,
)

# Not every attempt has its own.
_OF_SOME = ("map_index", "logical_date")


class PodBlueprint:
    """Makes pods that differ in nothing but their identity.

    Args:
        pod: the manifest without an identity, with a container `base`; not kept.
        as_args: the base container gets the task's command as its arguments, and keeps its
            own command; by default the task's command takes the place of both.
    """

    def __init__(self, pod: Mapping[str, Any], *, as_args: bool = False) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        self._pod = _encoded(pod, without=("metadata", "spec"))
        self._metadata = _encoded(metadata, without=("labels", "annotations", "finalizers"))
        held = metadata.get("finalizers") or []
        self._metadata["finalizers"] = orjson.Fragment(
            orjson.dumps([*held, *({FINALIZER} - set(held))])
        )
        self._labels = _others(metadata["labels"], without=_OF_SOME)
        self._annotations = _others(metadata["annotations"], without=(*_OF_SOME, CREATE_BEFORE))
        self._spec = _encoded(spec, without=("containers",))
        containers = spec["containers"]
        self._containers = [orjson.Fragment(orjson.dumps(one)) for one in containers]
        self._place = [_name(one) for one in containers].index(BASE_CONTAINER)
        self._words = "args" if as_args else "command"
        # Kubernetes would append arguments to the command.
        base = containers[self._place]
        self._base = _encoded(base, without=(self._words, "args"))
        self._mounts = _without_workload(base.get("volumeMounts"))
        self._volumes = _without_workload(spec.get("volumes"))

    def body(self, message: LaunchMessage, create_before_ms: int | None) -> bytes:
        """The pod to create, as JSON.

        Args:
            message: whose pod, where, and what it runs.
            create_before_ms: milliseconds since the epoch after which the API server must not
                create it any more; None for no such limit.
        """
        attempt = message.attempt
        annotations = {**self._annotations, **annotations_for(attempt, message.executor_id)}
        if create_before_ms is not None:
            annotations[CREATE_BEFORE] = create_before_annotation(create_before_ms)
        name = pod_name(attempt)
        base = {**self._base, self._words: message.command}
        spec = self._spec
        if message.workload is not None:
            base["volumeMounts"] = [*self._mounts, workload_file.volume_mount()]
            spec = {**spec, "volumes": [*self._volumes, workload_file.volume(name)]}
        containers: list[Any] = self._containers.copy()
        containers[self._place] = base
        return orjson.dumps(
            {
                **self._pod,
                "metadata": {
                    **self._metadata,
                    "name": name,
                    "namespace": message.namespace,
                    "labels": {**self._labels, **labels_for(attempt, message.executor_id)},
                    "annotations": annotations,
                },
                "spec": {**spec, "containers": containers},
            }
        )


def _name(container: Any) -> Any:
    return container.get("name") if isinstance(container, dict) else None


def _without_workload(parts: Any) -> list[Any]:
    """Volumes or mounts, but for those that stand where a workload's go."""
    return [
        each
        for each in parts or []
        if not (isinstance(each, dict) and workload_file.takes_its_place(each))
    ]


def _others(fields: Mapping[str, Any], without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in without}


def _encoded(fields: Mapping[str, Any], without: Collection[str]) -> dict[str, Any]:
    """All other fields, each ready to be copied into the JSON of a pod."""
    return {
        name: orjson.Fragment(orjson.dumps(value))
        for name, value in _others(fields, without).items()
    }
