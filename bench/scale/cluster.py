"""A large cluster as bytes: objects of a recorded one, each with its own names, UIDs and place, made when asked for.

Nothing is kept but the templates, so a server can hold any size. All VMs are alike, and no node is too full: what is
measured is watching, not planning.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDING = Path(__file__).parent.parent.parent / "tests" / "data" / "kubevirt-12x130.json.gz"
NAMESPACES = 40
OTHERS_PER_NODE = 2
"""Pods on each node that belong to no VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many nodes, and VMs on each."""

    nodes: int = 5_000
    vms_per_node: int = 20

    def count(self, plural: str) -> int:
        """Objects of a kind."""
        counts = {
            "nodes": self.nodes,
            "namespaces": NAMESPACES,
            "virtualmachineinstances": self.nodes * self.vms_per_node,
            "pods": self.nodes * (self.vms_per_node + OTHERS_PER_NODE),
            "kubevirts": 1,
        }
        return counts.get(plural, 0)


class Template:
    """An object's JSON with holes: `fill` puts texts into them."""

    def __init__(self, item: Mapping[str, Any], holes: Mapping[str, str]) -> None:
        """`holes` maps texts that occur in the object to the names of what takes their place."""
        text = json.dumps(item, separators=(",", ":"))
        text = re.sub(r'"resourceVersion":"\d+"', '"resourceVersion":"{version}"', text)
        wanted = {**holes, "{version}": "version"}
        pattern = "|".join(re.escape(found) for found in sorted(wanted, key=len, reverse=True))
        self._pieces = [wanted.get(piece, "") or piece.encode() for piece in re.split(f"({pattern})", text)]

    def fill(self, **texts: str) -> bytes:
        """The object."""
        return b"".join(texts[piece].encode() if isinstance(piece, str) else piece for piece in self._pieces)


class Cluster:
    """Every object of a shape by its number."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        recorded = json.loads(gzip.decompress(RECORDING.read_bytes()))["items"]
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for item in recorded:
            by_kind.setdefault(item["kind"], []).append(item)
        vmi = next(item for item in by_kind["VirtualMachineInstance"] if _plain(item))
        uid = vmi["metadata"]["uid"]
        launcher = next(p for p in by_kind["Pod"] if uid in json.dumps(p["metadata"].get("ownerReferences")))
        other = next(p for p in by_kind["Pod"] if "virt-launcher" not in p["metadata"]["name"])
        node = next(n for n in by_kind["Node"] if n["metadata"]["name"] == vmi["status"]["nodeName"])
        for amounts in (node["status"]["capacity"], node["status"]["allocatable"]):
            amounts.update({"cpu": "512", "memory": "8Ti", "pods": "500"})
        host = node["metadata"]["name"]
        self._kubevirt = Template(by_kind["KubeVirt"][0], {})
        self._node = Template(node, {host: "node", node["metadata"]["uid"]: "uid"})
        names = {launcher["metadata"]["name"]: "pod", vmi["metadata"]["name"]: "name", host: "node", uid: "uid"}
        names |= {vmi["metadata"]["namespace"]: "namespace", launcher["metadata"]["uid"]: "pod_uid"}
        self._vmi, self._launcher = Template(vmi, names), Template(launcher, names)
        meta = other["metadata"]
        holes = {meta["name"]: "name", meta["uid"]: "uid", meta["namespace"]: "namespace"}
        self._other = Template(other, holes | {other["spec"]["nodeName"]: "node"})

    def item(self, plural: str, number: int, version: int = 1) -> bytes:
        """One object."""
        rv = str(version)
        if plural == "nodes":
            return self._node.fill(node=f"worker-{number:05}", uid=f"node-{number}", version=rv)
        if plural == "namespaces":
            meta = {"name": f"team-{number:02}", "uid": f"namespace-{number}", "resourceVersion": rv}
            return json.dumps({"metadata": meta}).encode()
        if plural == "kubevirts":
            return self._kubevirt.fill(version=rv)
        vms = self.shape.nodes * self.shape.vms_per_node
        node = f"worker-{number % self.shape.nodes:05}"
        if number >= vms:
            return self._other.fill(
                name=f"agent-{number}", uid=f"agent-{number}", namespace=f"team-{number % NAMESPACES:02}",
                node=node, version=rv,
            )  # fmt: skip
        template = self._vmi if plural == "virtualmachineinstances" else self._launcher
        return template.fill(
            name=f"vm-{number:06}", pod=f"virt-launcher-vm-{number:06}-x", node=node, uid=f"vmi-{number}",
            pod_uid=f"pod-{number}", namespace=f"team-{number % NAMESPACES:02}", version=rv,
        )  # fmt: skip

    def items(self, plural: str, first: int, number: int) -> Iterator[bytes]:
        """Some of a kind's objects, beginning with that of number `first`."""
        for index in range(first, min(first + number, self.shape.count(plural))):
            yield self.item(plural, index)


def _plain(vmi: Mapping[str, Any]) -> bool:
    """A VMI that nothing ties to others or to a place."""
    tied = {"affinity", "topologySpreadConstraints", "nodeSelector"} & vmi["spec"].keys()
    return not tied and vmi["status"].get("phase") == "Running"
