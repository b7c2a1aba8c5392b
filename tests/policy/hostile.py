"""Small clusters, as JSON, in which everything happens that filters look at, and names collide as often as they can."""

from __future__ import annotations

from random import Random
from typing import Any

Object = dict[str, Any]

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"
TOPOLOGIES = (HOSTNAME, ZONE, "rack", "tier")
NAMESPACES = ("a", "b", "c")
"""There is no Namespace object for the last one."""
TAINTS = (("reserved", "gpu"), ("reserved", ""), ("node.kubernetes.io/unschedulable", ""), ("old", "1"))
EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")
FEATURES = ("UserNamespacesHostNetworkSupport", "RestartAllContainersOnContainerExits", "NobodyKnowsThisOne")
DRIVERS = ("csi.one", "csi.two")
LABELS = {"app": ("db", "web", ""), "ver": ("1", "2"), "kubevirt.io/created-by": ("u1", "u2")}
MODES = ("ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def chance(random: Random, percent: int) -> bool:
    return random.randrange(100) < percent


def some(random: Random, items: tuple[Any, ...], most: int) -> list[Any]:
    """Up to `most` different items, in their order."""
    wanted = random.randint(0, most)
    return [item for item in items if chance(random, 100 * wanted // len(items))]


def cluster(random: Random) -> Object:
    """A case for the oracle: what is there, and `candidates` to be placed."""
    nodes = [node(random, f"n{number}") for number in range(random.randint(1, 8))]
    names = [one["metadata"]["name"] for one in nodes]
    volumes, claims = storage(random)
    pods = [pod(random, f"p{number}", random.choice([*names, "ghost"])) for number in range(random.randint(0, 24))]
    return {
        "nodes": nodes,
        "pods": pods,
        "namespaces": [namespace(random, name) for name in NAMESPACES[:2]],
        "persistentVolumes": volumes,
        "persistentVolumeClaims": claims,
        "csiNodes": [csi_node(random, name) for name in names if chance(random, 60)],
        "candidates": [pod(random, f"incoming{number}", "", names) for number in range(random.randint(1, 6))],
    }


def node(random: Random, name: str) -> Object:
    labels = {HOSTNAME: random.choice([name, name, name, f"host-{name}"])} if chance(random, 92) else {}
    for key, values in ((ZONE, ("z1", "z2", "z3")), ("rack", ("r1", "r2")), ("tier", ("gold", "5", "12", ""))):
        if chance(random, 80):
            labels[key] = random.choice(values)
    if chance(random, 10):
        labels[OLD_ZONE] = random.choice(("z1", "z2"))
    taints = [
        {"key": key, "value": value, "effect": random.choice(EFFECTS)}
        for key, value in (random.choice(TAINTS) for _ in range(random.choice((0, 0, 0, 0, 0, 0, 1, 2))))
    ]
    allocatable = {
        "cpu": random.choice(("500m", "4", "8", "16")),
        "memory": random.choice(("2Gi", "16Gi", "64Gi")),
        "pods": random.choice(("1", "110", "110", "110")),
        "ephemeral-storage": random.choice(("0", "10Gi", "100Gi")),
    }
    for name_of, amount in (("example.com/gpu", "4"), ("hugepages-2Mi", "64Mi")):
        if chance(random, 75):
            allocatable[name_of] = amount
    return {
        "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {"taints": taints} | ({"unschedulable": True} if chance(random, 6) else {}),
        "status": {"allocatable": allocatable, "declaredFeatures": sorted(some(random, FEATURES, 3))},
    }


def namespace(random: Random, name: str) -> Object:
    labels = {"kubernetes.io/metadata.name": name} | ({"team": random.choice(("x", "y"))} if chance(random, 70) else {})
    return {"metadata": {"name": name, "labels": labels}}


def pod(random: Random, name: str, on: str, nodes: list[str] | None = None) -> Object:
    """A pod on a node, or one to be placed (`on` empty), which asks for more."""
    incoming = not on
    containers = [container(random, f"c{number}", incoming) for number in range(random.randint(1, 2))]
    spec: Object = {"containers": containers, "schedulerName": "default-scheduler"}
    if on:
        spec["nodeName"] = on
    if chance(random, 15):
        sidecar = {"restartPolicy": "Always"} if chance(random, 50) else {}
        spec["initContainers"] = [container(random, "init", incoming) | sidecar]
    if chance(random, 10):
        spec["overhead"] = {"cpu": "100m", "memory": "64Mi"}
    if chance(random, 5):
        spec["resources"] = {"requests": {"cpu": random.choice(("1", "3")), "memory": "1Gi"}}
    if chance(random, 4):
        spec |= {"hostNetwork": True, "hostUsers": False}
    volumes = [volume(random, f"v{number}") for number in range(random.choice((0, 0, 0, 1, 2)))]
    if volumes:
        spec["volumes"] = volumes
    between = {key: terms for key in ("podAffinity", "podAntiAffinity") if (terms := pod_terms(random, key, incoming))}
    if between:
        spec["affinity"] = between
    if incoming:
        _ask(random, spec, nodes or [])
    metadata: Object = {
        "name": name,
        "uid": name,
        "namespace": random.choice((*NAMESPACES, "a", "a")),
        "labels": labels(random),
    }
    if on and chance(random, 8):
        metadata |= {"deletionTimestamp": "2026-11-20T20:56:59Z", "deletionGracePeriodSeconds": 30}
    phase = random.choice(("Running", "Running", "Running", "Pending", "Succeeded", "Failed")) if on else "Pending"
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase}}


def _ask(random: Random, spec: Object, nodes: list[str]) -> None:
    """What only the pod that is to be placed is asked about."""
    if chance(random, 60):
        spec["tolerations"] = [toleration(random) for _ in range(random.randint(1, 3))]
    if chance(random, 10):
        spec["nodeSelector"] = {random.choice(TOPOLOGIES[1:]): random.choice(("z1", "r1", "gold"))}
    if chance(random, 15):
        terms = [node_term(random, nodes) for _ in range(random.randint(1, 2))]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        spec.setdefault("affinity", {})["nodeAffinity"] = required
    if chance(random, 60):
        constraints = [spread(random) for _ in range(random.randint(1, 2))]
        # The API server refuses a second constraint on the same topology and action.
        known = {(one["topologyKey"], one["whenUnsatisfiable"]): one for one in constraints}
        spec["topologySpreadConstraints"] = list(known.values())


def container(random: Random, name: str, incoming: bool) -> Object:
    requests: Object = {}
    if chance(random, 70):
        requests["cpu"] = random.choice(("100m", "250m", "1") if not incoming else ("100m", "100m", "1", "9"))
    if chance(random, 60):
        requests["memory"] = random.choice(("64Mi", "500M", "2Gi"))
    for resource, amount, percent in (
        ("ephemeral-storage", "2Gi", 6),
        ("example.com/gpu", "1", 8),
        ("hugepages-2Mi", "32Mi", 5),
    ):
        if chance(random, percent):
            requests[resource] = amount
    limits = {key: value for key, value in requests.items() if key in ("example.com/gpu", "hugepages-2Mi")}
    made: Object = {"name": name, "image": "i", "resources": {"requests": requests, "limits": limits}}
    if chance(random, 16):
        port = {"containerPort": 80, "hostPort": random.choice((80, 443)), "protocol": random.choice(("TCP", "UDP"))}
        made["ports"] = [port | ({"hostIP": random.choice(("10.0.0.1", "10.0.0.2", "0.0.0.0"))})]
    if chance(random, 3):
        rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
        made |= {"restartPolicy": "Never", "restartPolicyRules": [rule]}
    return made


def labels(random: Random) -> Object:
    return {key: random.choice(values) for key, values in LABELS.items() if chance(random, 70)}


def selector(random: Random) -> Object:
    """matchLabels, matchExpressions, both, or nothing, which selects everything."""
    found: Object = {}
    if chance(random, 60):
        key = random.choice(tuple(LABELS))
        found["matchLabels"] = {key: random.choice(LABELS[key])}
    if chance(random, 35):
        found["matchExpressions"] = [expression(random, LABELS) for _ in range(random.randint(1, 2))]
    return found


def expression(random: Random, known: Object) -> Object:
    key = random.choice(tuple(known))
    operator = random.choice(("In", "In", "NotIn", "Exists", "DoesNotExist"))
    if operator in ("Exists", "DoesNotExist"):
        return {"key": key, "operator": operator}
    values = [value for value in known[key] if chance(random, 60)] or [known[key][0]]
    return {"key": key, "operator": operator, "values": values}


def pod_terms(random: Random, kind: str, incoming: bool) -> Object:
    if not chance(random, 30 if incoming else 12):
        return {}
    count = random.randint(1, 2)
    return {"requiredDuringSchedulingIgnoredDuringExecution": [pod_term(random, kind) for _ in range(count)]}


def pod_term(random: Random, kind: str) -> Object:
    topology = random.choice(TOPOLOGIES if kind == "podAffinity" else (HOSTNAME, HOSTNAME, *TOPOLOGIES))
    term: Object = {"topologyKey": topology}
    if chance(random, 95):
        term["labelSelector"] = selector(random)
    if chance(random, 25):
        term["namespaces"] = some(random, NAMESPACES, 3)
    if chance(random, 25):
        team = {"team": ("x", "y")}
        term["namespaceSelector"] = {} if chance(random, 30) else {"matchExpressions": [expression(random, team)]}
    return term


def toleration(random: Random) -> Object:
    key, value = random.choice(TAINTS)
    shape = random.choice(("exists", "equal", "all", "effect", "implied"))
    effect = {"effect": random.choice(EFFECTS)} if chance(random, 50) else {}
    return {
        "exists": {"key": key, "operator": "Exists"} | effect,
        "equal": {"key": key, "operator": "Equal", "value": value} | effect,
        "implied": {"key": key, "value": value} | effect,
        "all": {"operator": "Exists"} | effect,
        "effect": {"key": key, "operator": "Exists", "effect": "NoSchedule"},
    }[shape]


def node_term(random: Random, nodes: list[str]) -> Object:
    term: Object = {}
    if chance(random, 75):
        known = {ZONE: ("z1", "z2"), "rack": ("r1",), "tier": ("gold", "5")}
        term["matchExpressions"] = [expression(random, known)]
        if chance(random, 20):
            limit = {"key": "tier", "operator": random.choice(("Gt", "Lt")), "values": [random.choice(("5", "7"))]}
            term["matchExpressions"].append(limit)
    if chance(random, 30):
        names = [*nodes, "ghost"]
        term["matchFields"] = [
            {"key": "metadata.name", "operator": random.choice(("In", "NotIn")), "values": [random.choice(names)]}
            for _ in range(random.randint(1, 2))
        ]
    return term


def spread(random: Random) -> Object:
    constraint: Object = {
        "maxSkew": random.randint(1, 3),
        "topologyKey": random.choice(TOPOLOGIES),
        "whenUnsatisfiable": "DoNotSchedule" if chance(random, 85) else "ScheduleAnyway",
    }
    if chance(random, 95):
        constraint["labelSelector"] = selector(random)
    if chance(random, 50) and constraint["whenUnsatisfiable"] == "DoNotSchedule":
        constraint["minDomains"] = random.randint(1, 6)
    for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        if chance(random, 30):
            constraint[policy] = random.choice(("Honor", "Ignore"))
    if chance(random, 20) and "labelSelector" in constraint:
        used = {"app"} & set(constraint["labelSelector"].get("matchLabels", {}))
        used |= {one["key"] for one in constraint["labelSelector"].get("matchExpressions", [])}
        constraint["matchLabelKeys"] = [key for key in ("ver", "missing") if key not in used]
        if "ver" in constraint["labelSelector"].get("matchLabels", {}):
            constraint["matchLabelKeys"] = ["missing"]
    return constraint


def volume(random: Random, name: str) -> Object:
    kind = random.randrange(10)
    if kind < 7:
        claim = random.choice(("c0", "c1", "c2", "c3", "c4", "c5") if chance(random, 99) else ("none",))
        return {"name": name, "persistentVolumeClaim": {"claimName": claim}}
    read_only = {"readOnly": True} if chance(random, 50) else {}
    if kind == 7:
        return {"name": name, "gcePersistentDisk": {"pdName": random.choice(("d1", "d2"))} | read_only}
    if kind == 8:
        iscsi = {"targetPortal": "10.0.0.9", "iqn": random.choice(("iqn.1", "iqn.2")), "lun": 0}
        return {"name": name, "iscsi": iscsi | read_only}
    monitors = some(random, ("m1", "m2", "m3"), 3) or ["m1"]
    return {"name": name, "rbd": {"monitors": monitors, "image": "disk", "pool": "pool"} | read_only}


def storage(random: Random) -> tuple[list[Object], list[Object]]:
    """Volumes, and claims to them in every namespace: bound, unbound, or bound to a volume that is gone."""
    volumes, claims = [], []
    for number in range(6):
        for namespace_of in NAMESPACES:
            name = f"pv-{namespace_of}-{number}"
            if chance(random, 98):
                volumes.append(persistent_volume(random, name))
            bound = chance(random, 98)
            annotations = {"pv.kubernetes.io/bind-completed": "yes"} if bound else {}
            metadata: Object = {"name": f"c{number}", "namespace": namespace_of, "annotations": annotations}
            if chance(random, 2):
                metadata |= {"deletionTimestamp": "2026-11-20T20:56:59Z", "deletionGracePeriodSeconds": 0}
            spec: Object = {"accessModes": [random.choice((*MODES[:1] * 4, *MODES))], "storageClassName": ""}
            if bound:
                spec["volumeName"] = name
            claims.append({"metadata": metadata, "spec": spec, "status": {"phase": "Bound" if bound else "Pending"}})
    return volumes, claims


def persistent_volume(random: Random, name: str) -> Object:
    zones = {random.choice((ZONE, ZONE, OLD_ZONE)): random.choice(("z1", "z2", "z1__z2", "z1__"))}
    metadata = {"name": name, "labels": zones if chance(random, 15) else {}}
    spec: Object = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": ""}
    if chance(random, 60):
        spec["csi"] = {"driver": random.choice(DRIVERS), "volumeHandle": random.choice((name, "shared"))}
    else:
        spec["nfs"] = {"server": "nas", "path": "/"}
    if chance(random, 15):
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [node_term(random, ["n0"])]}}
    return {"metadata": metadata, "spec": spec}


def csi_node(random: Random, name: str) -> Object:
    drivers = []
    for driver in DRIVERS:
        limit = {"allocatable": {"count": random.randint(0, 3)}} if chance(random, 70) else {}
        drivers.append({"name": driver, "nodeID": name} | limit)
    return {"metadata": {"name": name}, "spec": {"drivers": drivers}}
