"""Names and keys that we write into the cluster."""

from __future__ import annotations

import base64
import hashlib

PREFIX = "kubevirt-rebalancer.io/"
POLICY = f"{PREFIX}policy"
"""Annotation of a VMI or namespace; the value "ignore" opts out."""
RECEIVES = f"{PREFIX}receives"
"""Annotation of a node; "no" sends nothing there. "later" is our own mark, never written: migrations there failed."""
PAUSED = f"{PREFIX}paused"
"""Annotation of the KubeVirt CR or of our own namespace; "true" starts nothing new."""
RESUME = f"{PREFIX}resume"
"""Annotation of the same two; a moment (RFC 3339): failures up to it do not keep us from acting any more."""
PLAN = f"{PREFIX}plan"
"""Label of a VMIM: the id of the plan that wanted it."""
TARGET = f"{PREFIX}target"
"""Annotation of a VMIM: the node that it goes to, by name."""
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "kubevirt-rebalancer"


def migration_name(vmi_uid: str, node: str, last_migration_uid: str, finalised_own: int) -> str:
    """The name of our next VMIM for a VMI: the same whoever asks, until that VMIM has ended.

    `node` is where the VMI runs, `last_migration_uid` its status.migrationState.migrationUid or "", `finalised_own` the
    number of our VMIMs for it that have ended. The target is left out on purpose: two leaders with different plans
    must collide, so that the API server's AlreadyExists keeps the VMI at one unfinished VMIM of ours.
    """
    key = "\n".join((vmi_uid, node, last_migration_uid, str(finalised_own)))
    digest = base64.b32encode(hashlib.sha256(key.encode()).digest()).decode().lower()
    return f"rb-{digest[:20]}"
