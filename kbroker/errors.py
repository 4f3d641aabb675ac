"""Every error that kbroker raises on purpose.

A message is one line that says what is wrong, where, and what to do next; the
command line prints it without a traceback. `exit_code` follows the convention
of the command line: 2 for a usage error, 1 for a failure.
"""

from __future__ import annotations


class KbrokerError(Exception):
    """Base of all errors that a user may see."""

    exit_code = 1


class UsageError(KbrokerError):
    """The user asked for something that cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value is unknown, of the wrong type, or contradicts another."""


class ExecutorConfigError(UsageError):
    """A per-task `executor_config` has an unknown key or a wrong type."""


class TaskError(UsageError):
    """A task key, a launch id or a command is not usable."""


class TemplateError(UsageError):
    """A pod template or an override cannot be used as a pod manifest."""


class MutationHookError(UsageError):
    """The configured pod_mutation_hook failed, or left something that is no pod."""


class MissingExtraError(UsageError):
    """A class needs an optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra: pip install 'kbroker[{extra}]'")


class MessageError(KbrokerError):
    """A message on a queue or stream cannot be read; it goes to the dead stream."""


class NewerSchemaError(MessageError):
    """A message was written by a newer kbroker; it stays for a newer reader."""


class BrokerUnavailableError(KbrokerError):
    """Redis does not answer, or refuses us."""


class LeaseLostError(KbrokerError):
    """Another process holds the lease that this one needs to write."""


class ClusterError(KbrokerError):
    """The Kubernetes API cannot be used at all: no cluster, credentials or permission."""
