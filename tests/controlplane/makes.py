"""VMs of every make that shapes a target pod, and the nodes between which they are migrated.

All VMs start on `home`, alone. The others come later and differ from it in one thing each; OPEN are those that most VMs
may go to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controlplane.kubeclient import Object
from controlplane.objects import node

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
HOME = "home"
OPEN = ("twin", "tower")
GATES = (
    "CPUManager",
    "HypervStrictCheck",
    "WorkloadEncryptionSEV",
    "WorkloadEncryptionTDX",
    "NUMA",
)
NODE_SELECTORS = {"pool": "vms"}
"""Of the KubeVirt CR, set when all VMs run already."""
TSC = 2_593_905_000
SKYLAKE = {
    "cpu-vendor.node.kubevirt.io/Intel": "true",
    "host-model-cpu.node.kubevirt.io/Skylake-Server": "true",
    "host-model-required-features.node.kubevirt.io/vmx": "true",
    "cpu-feature.node.kubevirt.io/vmx": "true",
    "cpu-feature.node.kubevirt.io/avx2": "true",
    "cpu-feature.node.kubevirt.io/invtsc": "true",
    "cpu-model.node.kubevirt.io/Haswell": "true",
}
HYPERV = ("vpindex", "runtime", "reset", "synic", "synictimer", "frequencies", "reenlightenment", "tlbflush", "ipi")
RICH = SKYLAKE | {
    **{f"hyperv.node.kubevirt.io/{name}": "true" for name in HYPERV},
    **{f"kubevirt.io/{name}": "true" for name in ("cpumanager", "realtime", "sev", "sev-es", "sev-snp", "tdx")},
    "machine-type.node.kubevirt.io/pc-q35-rhel9.4.0": "true",
    "cpu-timer.node.kubevirt.io/tsc-frequency": str(TSC),
    "cpu-timer.node.kubevirt.io/tsc-scalable": "false",
    f"scheduling.node.kubevirt.io/tsc-frequency-{TSC}": "true",
    "tier": "gold",
    "generation": "7",
    "pool": "vms",
}
EPYC = {
    "kubevirt.io/cpumanager": "false",
    "cpu-vendor.node.kubevirt.io/AMD": "true",
    "host-model-cpu.node.kubevirt.io/EPYC": "true",
    "cpu-model-migration.node.kubevirt.io/EPYC": "true",
    "cpu-model.node.kubevirt.io/EPYC": "true",
    "pool": "vms",
}
ROOM = {
    "hugepages-2Mi": "8Gi",
    "hugepages-1Gi": "8Gi",
    "devices.kubevirt.io/sev": "100",
    "devices.kubevirt.io/tdx": "100",
}


def place(
    name: str, *, zone: str, labels: dict[str, str], cpu: str = "200", room: dict[str, str] | None = None, **spec: Any
) -> Object:
    """A node; `labels` replace those that a plain one has."""
    made = node(name, cpu=cpu, memory="500Gi", labels=labels | {ZONE: zone, "rack": f"of-{name}"})
    if "cpu-vendor.node.kubevirt.io/AMD" in labels:
        for label in [key for key in made["metadata"]["labels"] if "Intel" in key or "Skylake" in key]:
            del made["metadata"]["labels"][label]
    made["status"]["capacity"] |= ROOM if room is None else room
    made["spec"] |= spec
    return made


def first_node() -> Object:
    """Where every VM can start."""
    return place(HOME, zone="a", labels=RICH)


def other_nodes() -> list[Object]:
    """Two like the first, and one for each thing that keeps VMs away."""
    without_pool = {key: value for key, value in RICH.items() if key != "pool"}
    reserved = [{"key": "reserved", "value": "gpu", "effect": "NoSchedule"}]
    return [
        place("twin", zone="b", labels=RICH),
        # Its hostname is not its name, as on clouds that name nodes themselves.
        place("tower", zone="c", labels=RICH | {HOSTNAME: "tower.example"}),
        place("gpu", zone="b", labels=RICH, taints=reserved),
        place("epyc", zone="b", labels=EPYC),
        place("shut", zone="c", labels=RICH, unschedulable=True),
        place("small", zone="b", labels=RICH, cpu="100m", room={}),
        place("spare", zone="c", labels=without_pool),
        place("old", zone="c", labels=RICH | {"node-labeller.kubevirt.io/obsolete-host-model": "true"}),
    ]


def guests() -> list[Object]:
    """Pods that VMs are drawn to or kept from: one on `twin`, and on `tower` one that wants no `shunned` beside it."""
    shy = {"podAntiAffinity": required(term({"app": "shunned"}))}
    return [guest("guest", "twin", {"app": "guest"}), guest("shy", "tower", {"app": "shy"}, affinity=shy)]


def guest(name: str, on: str, labels: dict[str, str], **spec: Any) -> Object:
    """A pod that is no VM."""
    container = {"name": "main", "image": "main", "resources": {"requests": {"cpu": "10m"}}}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": on, "containers": [container], **spec}}


# -- Words for terms


def required(*terms: Object) -> Object:
    """Required terms of pod affinity or anti-affinity."""
    return {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}


def term(labels: dict[str, str], topology_key: str = HOSTNAME, **more: Any) -> Object:
    """One term."""
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": topology_key, **more}


def nodes(*terms: list[Object], names: tuple[str, ...] = ()) -> Object:
    """Required node affinity: any of the terms, each a list of expressions, or the node of one of the names."""
    fields = [[expression("metadata.name", "In", name)] for name in names]
    given = [{"matchExpressions": one} for one in terms] + [{"matchFields": one} for one in fields]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": given}}}


def expression(key: str, operator: str, *values: str) -> Object:
    """One expression."""
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


def apart(*terms: Object) -> Object:
    """Required anti-affinity."""
    return {"podAntiAffinity": required(*terms)}


def beside(*terms: Object) -> Object:
    """Required affinity."""
    return {"podAffinity": required(*terms)}


def spread(name: str, topology_key: str = ZONE, **more: Any) -> Object:
    """A constraint on the VM's own label."""
    constraint = {"maxSkew": 1, "topologyKey": topology_key, "whenUnsatisfiable": "DoNotSchedule"}
    return constraint | {"labelSelector": {"matchLabels": {"app": name}}} | more


# -- The VMs


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """One VM. `domain` and `spec` are laid over a plain VM's; `late` changes its spec while it runs."""

    name: str
    domain: Object = field(default_factory=dict)
    spec: Object = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    late: Object = field(default_factory=dict)

    def manifest(self) -> Object:
        """The VMI; like one that nobody asked for anything but a name."""
        domain: Object = {"devices": {}, "memory": {"guest": "128Mi"}, "resources": {"requests": {"cpu": "200m"}}}
        spec = {"evictionStrategy": "LiveMigrate", "terminationGracePeriodSeconds": 0, "architecture": "amd64"}
        return {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": self.name, "namespace": "default", "labels": {"app": self.name} | self.labels},
            "spec": spec | {"domain": domain | self.domain} | self.spec,
        }


def cpu(**fields: Any) -> Object:
    """spec.domain.cpu."""
    return {"cpu": fields}


def features(*pairs: tuple[str, str]) -> list[Object]:
    """CPU features by name and policy."""
    return [{"name": name} | ({"policy": policy} if policy else {}) for name, policy in pairs]


def hyperv(*names: str) -> Object:
    """Enabled Hyper-V features."""
    return {"features": {"hyperv": {name: {} for name in names}}}


def requests(limits: dict[str, str] | None = None, **amounts: str) -> Object:
    """spec.domain.resources."""
    return {"resources": {"requests": amounts} | ({"limits": limits} if limits else {})}


EFI: Object = {"firmware": {"bootloader": {"efi": {"secureBoot": False}}}}
WHOLE: Object = {"resources": {}, "memory": {"guest": "64Mi"}}
"""Nothing that KubeVirt would not work out by itself."""
SEV = {"name": "sev"}
NOT_READY = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}


def about_cpus() -> list[Make]:
    """Models, features, vendors, machine types, clocks, confidential guests."""
    huge_realtime = {"memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}, "resources": {}}
    realtime = cpu(cores=2, dedicatedCpuPlacement=True, realtime={}, numa={"guestMappingPassthrough": {}})
    return [
        Make(name="plain"),
        Make(name="named-model", domain=cpu(model="Haswell")),
        Make(name="same-model", domain=cpu(model="Skylake-Server")),
        Make(name="passthrough", domain=cpu(model="host-passthrough")),
        Make(name="host-model", domain=cpu(model="host-model")),
        Make(name="needs-avx2", domain=cpu(model="Haswell", features=features(("avx2", "require")))),
        Make(name="implies-avx2", domain=cpu(model="Haswell", features=features(("avx2", "")))),
        Make(name="forbids-svm", domain=cpu(model="Haswell", features=features(("svm", "forbid")))),
        Make(name="optional", domain=cpu(model="Haswell", features=features(("svm", "optional"), ("x", "disable")))),
        Make(name="host-needs-avx2", domain=cpu(model="host-model", features=features(("avx2", "require")))),
        Make(name="host-forbids-svm", domain=cpu(model="host-model", features=features(("svm", "forbid")))),
        Make(name="through-needs-avx2", domain=cpu(model="host-passthrough", features=features(("avx2", "require")))),
        Make(name="old-machine", domain={"machine": {"type": "pc-q35-rhel9.4.0"}}),
        Make(name="windows", domain=hyperv("relaxed", "vpindex", "synic", "synictimer", "tlbflush")),
        Make(name="windows-nested", domain=hyperv("vapic", "evmcs")),
        Make(name="windows-clock", domain=hyperv("reenlightenment", "frequencies")),
        Make(name="steady-clock", domain=cpu(model="host-passthrough", features=features(("invtsc", "require")))),
        Make(name="dedicated", domain=WHOLE | cpu(cores=2, dedicatedCpuPlacement=True)),
        Make(
            name="dedicated-emulator",
            domain=WHOLE | cpu(cores=2, dedicatedCpuPlacement=True, isolateEmulatorThread=True),
        ),
        Make(name="realtime", domain=huge_realtime | realtime),
        Make(name="confidential", domain=EFI | {"launchSecurity": {"sev": {}}}),
        Make(name="confidential-es", domain=EFI | {"launchSecurity": {"sev": {"policy": {"encryptedState": True}}}}),
        Make(name="confidential-snp", domain=EFI | {"launchSecurity": {"snp": {}}}),
        Make(name="confidential-tdx", domain=EFI | {"launchSecurity": {"tdx": {}}}),
    ]


def about_sizes() -> list[Make]:
    """Requests, limits, topologies, overheads, hugepages, devices, volumes."""
    disk = {"disks": [{"name": "disk", "disk": {"bus": "virtio"}}]}
    claim = [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]
    cloud = [{"name": "disk", "cloudInitNoCloud": {"userData": "#cloud-config"}}]
    return [
        Make(name="ratio", domain=WHOLE | cpu(cores=4)),
        Make(name="sockets", domain=WHOLE | cpu(cores=2, sockets=2, threads=2)),
        Make(name="limited", domain=requests({"cpu": "2"})),
        Make(name="limited-below", domain=requests({"cpu": "2", "memory": "1Gi"}, cpu="300m", memory="512Mi")),
        Make(name="overcommitted", domain=requests(memory="64Mi") | {"memory": {"guest": "128Mi"}}),
        Make(
            name="no-overhead", domain={"resources": {"overcommitGuestOverhead": True, "requests": {"memory": "64Mi"}}}
        ),
        Make(name="huge-pages", domain={"memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}}),
        Make(name="giant-pages", domain={"memory": {"guest": "1Gi", "hugepages": {"pageSize": "1Gi"}}}),
        Make(
            name="io-threads",
            domain=WHOLE | {"ioThreadsPolicy": "supplementalPool", "ioThreads": {"supplementalPoolThreadCount": 4}},
        ),
        Make(name="silent", domain={"devices": {"autoattachSerialConsole": False, "autoattachGraphicsDevice": False}}),
        Make(name="disk", domain={"devices": disk}, spec={"volumes": claim}),
        Make(name="cloud", domain={"devices": disk}, spec={"volumes": cloud}),
        Make(name="large", domain=requests(cpu="20")),
        Make(name="hostnamed", spec={"hostname": "an-other-name"}),
        Make(name="important", spec={"priorityClassName": "important"}),
        Make(name="a-name-of-fifty-nine-letters-that-leaves-no-room-for-prefixes"[:59]),
    ]


def about_nodes() -> list[Make]:
    """Node selectors, node affinity, tolerations; some of them changed while the VM runs."""
    b_or_c = expression(ZONE, "In", "a", "c")
    weight = {"weight": 5, "preference": {"matchExpressions": [b_or_c]}}
    preferred = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weight]}}
    gpu = {"key": "reserved", "value": "gpu", "effect": "NoSchedule"}
    cordon = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
    return [
        Make(name="gold", spec={"nodeSelector": {"tier": "gold"}}),
        Make(name="gold-generation", spec={"nodeSelector": {"tier": "gold", "generation": "7"}}),
        Make(name="own-pool", spec={"nodeSelector": {"pool": "vms"}}),
        Make(name="pinned", spec={"nodeSelector": {HOSTNAME: HOME}}),
        Make(name="zones", spec={"affinity": nodes([b_or_c])}),
        Make(name="not-rack", spec={"affinity": nodes([expression("rack", "NotIn", "of-twin")])}),
        Make(name="has-tier", spec={"affinity": nodes([expression("tier", "Exists")])}),
        Make(name="has-no-mark", spec={"affinity": nodes([expression("mark", "DoesNotExist")])}),
        Make(name="newer", spec={"affinity": nodes([expression("generation", "Gt", "6")])}),
        Make(name="older", spec={"affinity": nodes([expression("generation", "Lt", "8")])}),
        Make(name="either", spec={"affinity": nodes([b_or_c, expression("tier", "Exists")], [by_rack("twin")])}),
        Make(name="by-name", spec={"affinity": nodes(names=(HOME, "twin"))}),
        Make(name="leaning", spec={"affinity": preferred}),
        Make(name="tolerates-key", spec={"tolerations": [{"key": "reserved", "operator": "Exists"}]}),
        Make(name="tolerates-value", spec={"tolerations": [gpu]}),
        Make(name="tolerates-other", spec={"tolerations": [gpu | {"value": "fpga"}]}),
        Make(name="tolerates-all", spec={"tolerations": [{"operator": "Exists"}]}),
        Make(name="tolerates-cordon", spec={"tolerations": [cordon]}),
        Make(name="leaves-later", spec={"tolerations": [NOT_READY | {"tolerationSeconds": 30}]}),
        Make(name="late-selector", late={"nodeSelector": {"tier": "lead"}}),
        Make(name="late-affinity", late={"affinity": nodes([expression(ZONE, "In", "b")])}),
        Make(name="late-toleration", late={"tolerations": [gpu]}),
        Make(name="late-apart", late={"affinity": apart(term({"app": "guest"}, ZONE))}),
    ]


def by_rack(name: str) -> Object:
    """The rack that one node has to itself."""
    return expression("rack", "In", f"of-{name}")


def about_pods() -> list[Make]:
    """Affinity, anti-affinity and spread, with all that may stand in their terms."""
    guest = {"app": "guest"}
    weighted = [{"weight": 3, "podAffinityTerm": term(guest)}]
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
    keyed = term({"app": "keyed"}, ZONE, matchLabelKeys=["version"])
    unkeyed = term({"app": "unkeyed"}, ZONE, mismatchLabelKeys=["version"])
    return [
        Make(name="apart-host", spec={"affinity": apart(term(guest))}),
        Make(name="apart-zone", spec={"affinity": apart(term(guest, ZONE))}),
        Make(name="apart-own-host", spec={"affinity": apart(term({"app": "apart-own-host"}))}),
        Make(name="apart-own-zone", spec={"affinity": apart(term({"app": "apart-own-zone"}, ZONE))}),
        Make(name="apart-elsewhere", spec={"affinity": apart(term(guest, namespaces=["elsewhere"]))}),
        Make(name="apart-everywhere", spec={"affinity": apart(term(guest, namespaceSelector={}))}),
        Make(name="apart-keyed", labels={"version": "2"}, spec={"affinity": apart(keyed)}),
        Make(name="unkeyed", labels={"version": "2"}, spec={"affinity": apart(unkeyed)}),
        Make(name="shunned"),
        Make(name="beside-own-zone", spec={"affinity": beside(term({"app": "beside-own-zone"}, ZONE))}),
        Make(name="beside-late", late={"affinity": beside(term(guest))}),
        Make(name="beside-late-zone", late={"affinity": beside(term(guest, ZONE))}),
        Make(name="beside-and-apart", late={"affinity": beside(term(guest, ZONE)) | apart(term(guest))}),
        Make(name="drawn", spec={"affinity": {"podAffinity": preferred, "podAntiAffinity": preferred}}),
        Make(name="spread-zone", spec={"topologySpreadConstraints": [spread("spread-zone")]}),
        Make(name="spread-host", spec={"topologySpreadConstraints": [spread("spread-host", HOSTNAME)]}),
        Make(
            name="spread-anyway",
            spec={"topologySpreadConstraints": [spread("spread-anyway", whenUnsatisfiable="ScheduleAnyway")]},
        ),
        Make(name="spread-many", spec={"topologySpreadConstraints": [spread("spread-many", minDomains=5)]}),
        Make(
            name="spread-policies",
            spec={
                "topologySpreadConstraints": [
                    spread("spread-policies", nodeTaintsPolicy="Honor", nodeAffinityPolicy="Ignore")
                ]
            },
        ),
        Make(
            name="spread-keyed",
            labels={"version": "2"},
            spec={"topologySpreadConstraints": [spread("spread-keyed", matchLabelKeys=["version"])]},
        ),
        Make(name="spread-rackless", late={"topologySpreadConstraints": [spread("spread-rackless", "row")]}),
    ]


def makes() -> list[Make]:
    """All of them."""
    return [*about_cpus(), *about_sizes(), *about_nodes(), *about_pods()]
