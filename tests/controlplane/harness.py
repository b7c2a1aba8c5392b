"""A Kubernetes and KubeVirt control plane as plain processes on 127.0.0.1, for as long as a `with` block.

Nothing is simulated but the nodes: etcd, kube-apiserver with RBAC and audit log, kube-scheduler, virt-controller and
virt-api with its admission webhooks are the real ones. There is no kube-controller-manager and no kubelet; what tests
need of them is in namespace() here and in the node plane.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
from anyio.to_thread import run_sync
from controlplane import setup
from controlplane.audit import AuditEvent, read_audit
from controlplane.binaries import find
from controlplane.certificates import write_certificates
from controlplane.identities import TOKENS, write_kubeconfig, write_tokens
from controlplane.kubeclient import ApiError, KubeClient, Object
from controlplane.processes import Launcher, Process, ProcessError, free_ports

PROGRAMS = ("etcd", "kube-apiserver", "kube-scheduler", "kubectl", "virt-controller", "virt-api", "crds")
START_SECONDS = 60
# The order in which parts are ended; kube-apiserver hangs for minutes when etcd goes first.
STOP_ORDER = ("virt-controller", "virt-api", "kube-scheduler", "kube-apiserver", "etcd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of one control plane, on 127.0.0.1."""

    etcd: int
    etcd_peer: int
    apiserver: int
    virt_api: int
    virt_controller: int


@dataclass(slots=True)
class ControlPlane:
    """Start with `async with`; then url, client(), kubeconfig() and so on may be used.

    `kubevirt` False leaves KubeVirt out altogether (a cluster without it); `configuration` is the KubeVirt CR's.
    """

    kubevirt: bool = True
    configuration: Object = field(default_factory=dict)
    keep: Path | None = None
    folder: Path = field(init=False)
    ports: Ports = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict, init=False)
    _binaries: dict[str, Path] = field(default_factory=dict, init=False)
    _parts: dict[str, Process] = field(default_factory=dict, init=False)
    _clients: dict[str, KubeClient] = field(default_factory=dict, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _launcher: Launcher = field(default_factory=Launcher, init=False)
    ca: str = field(default="", init=False)
    _tls: ssl.SSLContext = field(init=False)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        begin = time.monotonic()
        await run_sync(self._prepare)
        try:
            await self._start(begin)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            for client in self._clients.values():
                await client.close()
            for name in STOP_ORDER:
                if name in self._parts:
                    await self._parts[name].kill()
            await run_sync(self._launcher.close)
            await run_sync(self._stack.close)

    def _prepare(self) -> None:
        self._binaries = find(*PROGRAMS)
        if self.keep is None:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="controlplane-")))
        else:
            self.folder = self.keep
        (self.folder / "logs").mkdir(parents=True)
        write_certificates(self.folder / "pki")
        write_tokens(self.folder / "tokens.csv")
        (self.folder / "audit-policy.yaml").write_text(setup.AUDIT_POLICY)
        etcd, etcd_peer, apiserver, virt_api, virt_controller = free_ports(5)
        self.ports = Ports(
            etcd=etcd, etcd_peer=etcd_peer, apiserver=apiserver, virt_api=virt_api, virt_controller=virt_controller
        )
        self._tls = ssl.create_default_context(cafile=str(self.ca_file))
        self.ca = self.ca_file.read_text()
        for identity in TOKENS:
            self._write_kubeconfig(identity, self.token(identity))

    async def _start(self, begin: float) -> None:
        await self._start_etcd()
        await self._start_apiserver()
        self.seconds["kube-apiserver"] = time.monotonic() - begin
        admin = self.client("admin")
        await self._start_scheduler()
        if self.kubevirt:
            objects = await run_sync(setup.kubevirt_objects, self._binaries["crds"])
            await setup.install_kubevirt(admin, objects, configuration=self.configuration, ca=self.ca)
            self.seconds["definitions"] = time.monotonic() - begin
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._start_virt_controller)
                tasks.start_soon(self._start_virt_api)
            self.seconds["virt-api"] = time.monotonic() - begin
            await setup.install_webhooks(admin, objects, port=self.ports.virt_api, ca=self.ca)
        await self.namespace("default")
        self.seconds["ready"] = time.monotonic() - begin

    # -- use ----------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Base URL of the API server."""
        return f"https://127.0.0.1:{self.ports.apiserver}"

    @property
    def ca_file(self) -> Path:
        """File with the authority that signed every certificate."""
        return self.folder / "pki" / "ca.crt"

    def token(self, identity: str) -> str:
        """Bearer token of one of identities.TOKENS."""
        return TOKENS[identity].token

    def client(self, identity: str = "admin", *, token: str | None = None) -> KubeClient:
        """A client that lives as long as the control plane; with `token`, whatever that token stands for."""
        key = token or self.token(identity)
        if key not in self._clients:
            self._clients[key] = KubeClient(self.url, token=key, tls=self._tls)
        return self._clients[key]

    async def kubeconfig(self, name: str = "admin", *, token: str | None = None) -> Path:
        """Path of a kubeconfig: of one of identities.TOKENS, or a new one of that name for `token`."""
        return await run_sync(self._write_kubeconfig, name, token or self.token(name))

    def _write_kubeconfig(self, name: str, token: str) -> Path:
        path = self.folder / f"{name}.kubeconfig"
        write_kubeconfig(path, url=self.url, ca_file=self.ca_file, user=name, token=token)
        return path

    async def service_account_token(self, namespace: str, name: str, *, seconds: int = 3_600) -> str:
        """A token by TokenRequest, as a pod of that ServiceAccount has it; the account must exist."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return str((await self.client().create(path, request))["status"]["token"])

    async def namespace(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """Create a namespace with its `default` ServiceAccount, which no controller would create here."""
        await setup.ensure_namespace(self.client(), name, labels=labels)

    async def configure_kubevirt(self, configuration: Object) -> None:
        """Change the KubeVirt CR's configuration, e.g. {"migrations": {"parallelMigrationsPerCluster": 2}}."""
        await setup.apply_kubevirt(self.client(), configuration)

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What the real kubectl prints, as admin; CalledProcessError where it fails."""
        kubeconfig = await self.kubeconfig("admin")
        command = [str(self._binaries["kubectl"]), f"--kubeconfig={kubeconfig}", *arguments]
        # Its discovery cache belongs to this server alone.
        environment = {"HOME": str(self.folder)}
        return (await anyio.run_process(command, input=stdin.encode(), env=environment)).stdout.decode()

    async def audit(self) -> list[AuditEvent]:
        """Every request that was answered so far, oldest first."""
        return await run_sync(partial(read_audit, self.folder / "audit.log"))

    async def restart_apiserver(self, *, crash: bool = False, pause_seconds: float = 0) -> None:
        """Stop the API server (or kill it), wait, start it again on the same port and await it.

        Stopping takes seconds: it waits for watches that are still open until it is made to end.
        """
        process = self._parts["kube-apiserver"]
        await (process.kill() if crash else process.stop(seconds=5))
        await anyio.sleep(pause_seconds)
        await self._start_apiserver()

    async def compact(self) -> int:
        """Compact etcd up to its present revision, so that older watches get 410 Gone; returns the revision."""
        return await setup.compact_etcd(self.ports.etcd)

    def pid(self, name: str) -> int:
        """Process id of a part, e.g. "kube-apiserver"."""
        return self._parts[name].pid

    def log_tails(self) -> str:
        """The end of every log, for the report of a failed test."""
        return "\n".join(process.tail() for process in self._parts.values())

    # -- parts --------------------------------------------------------------------------------------------------------

    async def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.ports.etcd, self.ports.etcd_peer))
        etcd = await self._launch(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--logger=zap",
        )
        await etcd.ready(partial(setup.answers, f"{client}/health"), seconds=START_SECONDS)

    async def _start_apiserver(self) -> None:
        arguments = setup.apiserver_arguments(self.folder, etcd=self.ports.etcd, port=self.ports.apiserver)
        process = await self._launch("kube-apiserver", *arguments)
        await process.ready(self._apiserver_is_ready, seconds=START_SECONDS)

    async def _apiserver_is_ready(self) -> bool:
        try:
            await self.client().get("/readyz")
            # RBAC's own roles are written after the server is ready, and everything else here needs them.
            await self.client().get("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:kube-scheduler")
        except (ApiError, OSError):
            return False
        return True

    async def _start_scheduler(self) -> None:
        kubeconfig = f"--kubeconfig={self.folder / 'scheduler.kubeconfig'}"
        await self._launch("kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")

    async def _start_virt_controller(self) -> None:
        process = await self._launch(
            "virt-controller",
            f"--kubeconfig={self.folder / 'controller.kubeconfig'}",
            "--listen=127.0.0.1",
            f"--port={self.ports.virt_controller}",
            f"--prom-cert-file={self.folder / 'pki' / 'virt-controller.crt'}",
            f"--prom-key-file={self.folder / 'pki' / 'virt-controller.key'}",
            "--launcher-image=virt-launcher",
            # It exits when it loses its lease, which a restart of the API server may take from it otherwise.
            "--leader-elect-lease-duration=180s",
            "--leader-elect-renew-deadline=150s",
            kubevirt=True,
        )
        leader = f"https://127.0.0.1:{self.ports.virt_controller}/leader"
        await process.ready(partial(setup.answers, leader, tls=self._tls, text='"true"'), seconds=START_SECONDS)

    async def _start_virt_api(self) -> None:
        pki = self.folder / "pki"
        process = await self._launch(
            "virt-api",
            f"--kubeconfig={self.folder / 'apiserver.kubeconfig'}",
            "--listen=127.0.0.1",
            f"--port={self.ports.virt_api}",
            f"--tls-cert-file={pki / 'virt-api.crt'}",
            f"--tls-key-file={pki / 'virt-api.key'}",
            f"--handler-cert-file={pki / 'handler.crt'}",
            f"--handler-key-file={pki / 'handler.key'}",
            kubevirt=True,
        )
        healthy = f"https://127.0.0.1:{self.ports.virt_api}/apis/subresources.kubevirt.io/v1/healthz"
        await process.ready(partial(setup.answers, healthy, tls=self._tls), seconds=START_SECONDS)

    async def _launch(self, name: str, *arguments: str, kubevirt: bool = False) -> Process:
        environment = (
            {"POD_NAME": name, "POD_NAMESPACE": setup.KUBEVIRT, "NAMESPACE": setup.KUBEVIRT} if kubevirt else {}
        )
        command = [str(self._binaries[name]), *arguments]
        process = await self._launcher.start(
            name, command, log=self.folder / "logs" / f"{name}.log", environment=environment
        )
        self._parts[name] = process
        return process


__all__ = ["ControlPlane", "Ports", "ProcessError"]
