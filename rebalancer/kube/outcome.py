"""What a request to the API server ends in: an answer, an expected refusal (a value), or an ApiError.

A refusal is the server's considered "no" (4xx): callers branch on its kind. An ApiError means that there is no
usable answer (refused, reset, timed out, 5xx, HTML from a proxy): after a write, whether it was applied is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

NOT_FOUND = "NotFound"
ALREADY_EXISTS = "AlreadyExists"
CONFLICT = "Conflict"
EXPIRED = "Expired"
INVALID = "Invalid"
TOO_MANY_REQUESTS = "TooManyRequests"
FORBIDDEN = "Forbidden"
REJECTED = "Rejected"
REFUSALS = (NOT_FOUND, ALREADY_EXISTS, CONFLICT, EXPIRED, INVALID, TOO_MANY_REQUESTS, FORBIDDEN, REJECTED)

MESSAGE_LIMIT = 500


class KubeError(Exception):
    """Everything that keeps us from talking to the cluster."""


class ConfigError(KubeError):
    """No usable configuration: kubeconfig, service account or certificate."""


class ApiError(KubeError):
    """No usable answer. `status` is 0 where there was none at all; `retry_after_seconds` 0.0 where none was given."""

    def __init__(self, message: str, *, status: int = 0, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class LineError(ApiError):
    """A watch sends a line too long to be taken in; asking for it again would bring it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A 2xx answer with its JSON body, undecoded."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A 4xx answer. `kind` is one of REFUSALS (bounded: a metric label), `message` the server's own words."""

    kind: str
    status: int
    message: str
    retry_after_seconds: float = 0.0


class _Details(msgspec.Struct):
    retry_after: float | None = msgspec.field(name="retryAfterSeconds", default=None)


class _Status(msgspec.Struct):
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(_Status)


def read_status(body: bytes) -> tuple[str, str, float]:
    """Reason, message and Retry-After of a metav1.Status; any other body becomes the message, shortened."""
    try:
        status = _STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = " ".join(body[:MESSAGE_LIMIT].decode("utf-8", "replace").split())
        return "", text[:MESSAGE_LIMIT], 0.0
    retry_after = status.details.retry_after if status.details else None
    return status.reason or "", (status.message or "")[:MESSAGE_LIMIT], retry_after or 0.0


def refusal(status: int, body: bytes, *, retry_after_seconds: float, permission: str) -> Refusal:
    """The value of a 4xx answer. `permission` says in words what a 403 has to be granted."""
    reason, message, in_body = read_status(body)
    kind = _kind(status, reason)
    if kind == FORBIDDEN:
        message = f"not permitted to {permission}: {message}"
    return Refusal(
        kind=kind, status=status, message=message or reason, retry_after_seconds=retry_after_seconds or in_body
    )


def _kind(status: int, reason: str) -> str:
    if status == 409:
        return ALREADY_EXISTS if reason == "AlreadyExists" else CONFLICT
    by_status = {403: FORBIDDEN, 404: NOT_FOUND, 410: EXPIRED, 422: INVALID, 429: TOO_MANY_REQUESTS}
    # virt-api's webhooks refuse with a plain 400 and a text; INVALID would wrongly say that our object is malformed.
    return by_status.get(status, REJECTED)


def permission(method: str, path: str, *, watching: bool = False, listing: bool = False) -> str:
    """The RBAC verb and resource of a request in words: `create leases.coordination.k8s.io in namespace x`."""
    parts = [part for part in path.split("/") if part]
    group = "" if parts[:1] == ["api"] else (parts[1] if len(parts) > 1 else "")
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:]
    where = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        where, rest = f" in namespace {rest[1]}", rest[2:]
    resource = rest[0] if rest else path
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, "get")
    if verb == "get" and watching:
        verb = "watch"
    elif verb == "get" and (listing or len(rest) < 2):
        verb = "list"
    return f"{verb} {resource}{'.' + group if group else ''}{where}"
