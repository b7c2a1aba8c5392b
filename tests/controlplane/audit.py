"""kube-apiserver's audit log: who wrote what, in the order of the answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CREDENTIAL = "authentication.kubernetes.io/credential-id"
MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One answered request. `request` and `response` are bodies, kept for KubeVirt's objects only.

    `credential` names the very token of a ServiceAccount, so that two processes of one account can be told apart.
    """

    user: str
    credential: str
    agent: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    uri: str
    received: str
    dry_run: bool
    request: dict[str, Any] | None
    response: dict[str, Any] | None

    @property
    def mutating(self) -> bool:
        """Whether it would have changed something: by verb, and not as a server-side dry run."""
        return self.verb in MUTATING and not self.dry_run


def read_audit(path: Path) -> list[AuditEvent]:
    """Events of the log; a line that is still being written is left out."""
    with path.open() as lines:
        return [_event(json.loads(line)) for line in lines if line.endswith("\n")]


def _event(raw: dict[str, Any]) -> AuditEvent:
    target: dict[str, str] = raw.get("objectRef", {})
    return AuditEvent(
        user=raw["user"].get("username", ""),
        credential=next(iter(raw["user"].get("extra", {}).get(CREDENTIAL, ())), ""),
        agent=raw.get("userAgent", ""),
        verb=raw["verb"],
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=raw.get("responseStatus", {}).get("code", 0),
        uri=raw["requestURI"],
        received=raw["requestReceivedTimestamp"],
        dry_run="dryRun=All" in raw["requestURI"],
        request=raw.get("requestObject"),
        response=raw.get("responseObject"),
    )
