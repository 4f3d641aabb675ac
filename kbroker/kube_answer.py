"""What the API server answers when a request does not succeed, and what it means if nobody does."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Self

import aiohttp

from kbroker.errors import KbrokerError
from kbroker.pod import ApiStatus
from kbroker.retry import ApiFailure

_SHOWN = 200  # characters of an answer that is not the API server's


class ApiError(KbrokerError):
    """The API server answered with a failure, or nobody answered.

    Attributes:
        failure: what `retry.decide` needs to know.
        details: of the Status object.
    """

    def __init__(self, failure: ApiFailure, details: dict[str, Any] | None = None) -> None:
        super().__init__(failure.message or f"{failure.status} {failure.reason}")
        self.failure = failure
        self.details = details or {}

    @property
    def status(self) -> int:
        """HTTP status; 0 when no answer came."""
        return self.failure.status


def refusal(status: int, phrase: str, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that an answer other than success means.

    Args:
        status: HTTP status.
        phrase: the words beside it.
        headers: of the answer, by their names in lower case.
        body: of the answer: a Status object, or whatever a proxy says.
    """
    told = ApiStatus.decode(body)
    words = told.message or " ".join(body[:_SHOWN].decode(errors="replace").split())
    if not words:
        words = f"HTTP {status} {phrase}".strip()
    failure = ApiFailure(status, told.reason or phrase, words, _retry_after(headers, told.details))
    return ApiError(failure, told.details)


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    for said in (headers.get("retry-after"), details.get("retryAfterSeconds")):
        # Kubernetes gives seconds; a date, as HTTP allows, says nothing that back-off does not.
        if str(said).isdecimal():
            return float(str(said))
    return None


class answering:  # noqa: N801 - reads as a statement
    """Turns aiohttp's failures, and running out of time, into ApiError.

    Attributes:
        sent: whether some of the request may have reached the API server by now. What
            fails while the connection is made is known not to have been sent.
    """

    def __init__(self, *, sent: bool = False) -> None:
        self.sent = sent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        failure = None if error is None else self._failure(error)
        if failure is not None:
            raise ApiError(failure) from error

    def _failure(self, error: BaseException) -> ApiFailure | None:
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return ApiFailure(0, "dns", f"unknown host {error.host}", sent=False)
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = untrusted(error.certificate_error)
            where = f"{error.host}:{error.port}"
            return ApiFailure(0, "tls", f"{where} cannot be trusted: {why}", sent=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            kind = "tls" if isinstance(error, aiohttp.ClientSSLError) else "refused"
            why = error.os_error.strerror or str(error.os_error)
            where = f"{error.host}:{error.port}"
            return ApiFailure(0, kind, f"cannot connect to {where}: {why}", sent=False)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            why = f"the proxy answers {error.status} {error.message}"
            return ApiFailure(0, "refused", why, sent=False)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ApiFailure(0, "timeout", "no connection in time", sent=False)
        if isinstance(error, TimeoutError):
            return ApiFailure(0, "timeout", "no answer in time", sent=self.sent)
        if isinstance(error, aiohttp.ClientError | OSError):
            return ApiFailure(0, "reset", str(error) or type(error).__name__, sent=self.sent)
        return None


def untrusted(error: Exception) -> str:
    """Why a server's certificate is not accepted."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        return error.verify_message
    return str(error)
