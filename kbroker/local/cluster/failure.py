"""The API server's failures, as the Status objects that clients expect."""

from __future__ import annotations

from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Failure(Exception):  # noqa: N818 - it is an answer
    """An answer other than success.

    Args:
        code: HTTP status.
        message: in the API server's words.
        reason: of the Status object; by default the usual one of the code.
        details: of the Status object: name, kind, causes, retryAfterSeconds.
    """

    def __init__(self, code: int, message: str, reason: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason or REASONS.get(code, "Unknown")
        self.details = {name: value for name, value in details.items() if value is not None}

    def status(self) -> dict[str, Any]:
        """The Status object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


def not_found(resource: str, name: str) -> Failure:
    """There is no such object."""
    return Failure(404, f'{resource} "{name}" not found', name=name, kind=resource)


def already_exists(resource: str, name: str) -> Failure:
    """The name is taken."""
    return Failure(
        409, f'{resource} "{name}" already exists', "AlreadyExists", name=name, kind=resource
    )


def conflict(resource: str, name: str, why: str) -> Failure:
    """A precondition does not hold, or the object was changed meanwhile."""
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return Failure(409, message, name=name, kind=resource)


def modified(resource: str, name: str) -> Failure:
    """Somebody else was faster."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try "
        "again",
    )


def forbidden(resource: str, name: str, why: str) -> Failure:
    """Admission says no."""
    return Failure(403, f'{resource} "{name}" is forbidden: {why}', name=name, kind=resource)


def invalid(kind: str, name: str, causes: list[tuple[str, str]]) -> Failure:
    """Validation says no; causes are (field, what is wrong with it)."""
    first = ", ".join(f"{field}: {problem}" for field, problem in causes)
    if len(causes) > 1:
        first = f"[{first}]"
    listed = [
        {"reason": _cause_reason(problem), "message": problem, "field": field}
        for field, problem in causes
    ]
    return Failure(422, f'{kind} "{name}" is invalid: {first}', name=name, kind=kind, causes=listed)


_CAUSES = {
    "Required value": "FieldValueRequired",
    "Duplicate value": "FieldValueDuplicate",
    "Unsupported value": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "Too long": "FieldValueTooLong",
}


def _cause_reason(problem: str) -> str:
    return _CAUSES.get(problem.partition(":")[0], "FieldValueInvalid")


def expired(version: int, oldest: int) -> Failure:
    """The history that was asked for is gone."""
    return Failure(410, f"too old resource version: {version} ({oldest})")


def too_new(version: int, present: int) -> Failure:
    """The server has not got there yet."""
    return Failure(
        504,
        f"Too large resource version: {version}, current: {present}",
        causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        retryAfterSeconds=1,
    )
