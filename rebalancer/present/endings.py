"""Why a move of ours ended, in one word of a closed list: what a metric can count.

An outcome's message is for people: our own words, the API server's or KubeVirt's, and KubeVirt has no enumeration of
its reasons. What none of the patterns knows is `Other`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rebalancer.domain.report import Outcome

OTHER = "Other"

WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Succeeded": (("Landed", ""),),
    "Failed": (
        ("NotEnded", "it has not ended$"),
        ("Deadline", "^it passed its deadline"),
        ("LandedElsewhere", "^it landed on "),
        ("Disappeared", "^the migration disappeared"),
        ("NoNodeForPod", "^its target pod found no node|unschedulable|timeout period exceeded"),
        ("Quota", "exceeded quota"),
        ("TargetPod", "target (attachment )?pod"),
        ("Timeout", "not completed|stuck|timed? ?out"),
        ("Aborted", "abort|cancel"),
        ("Transfer", "migration out job|operation failed|connection|libvirt|qemu|source node reported"),
        ("NoReason", "^KubeVirt gives no reason"),
    ),
    "Withdrawn": (
        ("Evacuation", "is being evacuated from"),
        ("OptedOut", "has been opted out"),
        ("OtherMigration", "has another migration"),
        ("Target", "^the target node is gone|^target .* is (cordoned|not ready)"),
        ("EarlierLeader", "by an earlier leader"),
        ("Unsettled", "^KubeVirt is |nodes have just been lost"),
    ),
    "Refused": (
        ("Forbidden", "forbidden"),
        ("NameTaken", "is somebody else's|stand in the way of a new name"),
        ("Webhook", "admission webhook|denied the request"),
        ("Field", "unknown field|strict decoding"),
    ),
    "Lost": (
        ("NoAnswer", "^no answer"),
        ("VMGone", "does not exist any more"),
        ("VMReplaced", "is another VM now"),
    ),
}
"""By result: a reason, and what its messages look like; the first that fits is it."""

REASONS: Mapping[str, tuple[str, ...]] = {
    result: tuple(name for name, _ in words) + (() if result == "Succeeded" else (OTHER,))
    for result, words in WORDS.items()
}
"""Every reason that a result can have."""


def reason(outcome: Outcome) -> str:
    """One of REASONS[outcome.result]."""
    for name, pattern in WORDS[outcome.result]:
        if re.search(pattern, outcome.message, re.IGNORECASE):
            return name
    return OTHER
