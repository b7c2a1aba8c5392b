"""How to reach a cluster: kubeconfig or service account, credentials that are renewed, TLS.

The only importer of kubernetes_asyncio, which reads configurations well (contexts, exec plugins, in-cluster files).
It and aiohttp are imported inside the functions that need them: they cost 0.4 and 0.2 s, which a plan from a file must
not pay, and settings name an Access long before anybody connects.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from rebalancer.kube.outcome import ApiError, ConfigError

if TYPE_CHECKING:
    import aiohttp

    from rebalancer.kube.transport import Api, ClientParams

TOKEN_SECONDS = 60.0
"""How often the service account's token is read again; the kubelet rotates it at 80 % of its life."""

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which cluster. Without a kubeconfig: the service account where there is one, else kubectl's own default.

    `service_account` is the folder with `token` and `ca.crt`. `strict_x509` False accepts certificate authorities
    without an authority key identifier, as some managed clusters have them (Python 3.13 and later refuse those).
    """

    kubeconfig: str = ""
    context: str = ""
    service_account: str = SERVICE_ACCOUNT
    strict_x509: bool = True


async def connect(access: Access, *, monotonic: Callable[[], float], params: ClientParams | None = None) -> Api:
    """An Api for the cluster, not yet entered. Raises ConfigError, in one line, where there is no usable access."""
    import aiohttp  # noqa: PLC0415

    from rebalancer.kube.transport import CLIENT_DEFAULTS, Api, Endpoint  # noqa: PLC0415

    params = params or CLIENT_DEFAULTS
    in_cluster = not access.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ
    configuration = await _load(access, in_cluster)
    tls = await anyio.to_thread.run_sync(_tls, configuration, access) if _is_tls(configuration) else None
    if in_cluster:
        credentials = TokenFile(f"{access.service_account}/token", monotonic).header
    else:
        credentials = Kubeconfig(access, configuration, tls).header

    def connector() -> aiohttp.BaseConnector:
        # A connection has the client certificate that it was opened with: one that has been renewed needs a new one.
        once = bool(configuration.cert_file)
        return aiohttp.TCPConnector(
            limit=params.connections, ssl=tls or True, socket_factory=_open_socket, force_close=once
        )

    async def trust() -> None:
        if tls is not None:
            # As it is now: a kubeconfig may have its certificate authorities in itself, not in a file.
            with suppress(ConfigError):
                await anyio.to_thread.run_sync(_trust_also, tls, await _load(access, in_cluster))

    endpoint = Endpoint(
        base_url=configuration.host,
        connector=connector,
        credentials=credentials,
        trust=trust,
        proxy=configuration.proxy or None,
        server_hostname=configuration.tls_server_name or None,
    )
    return Api(endpoint, params)


def _open_socket(address: Any) -> socket.socket:
    """A connection that takes with it what it has not delivered when it is given up.

    The kernel would go on delivering otherwise, and a write that we gave up in a broken network would arrive when that
    has healed, long after the lease has gone.
    """
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return opened


async def _load(access: Access, in_cluster: bool) -> Any:
    """A kubernetes_asyncio Configuration. Its loaders raise whatever the file makes them stumble over."""
    from kubernetes_asyncio import config  # noqa: PLC0415
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415

    configuration = Configuration()
    configuration.host = ""
    what = "service account" if in_cluster else await anyio.to_thread.run_sync(_kubeconfig, access)
    try:
        if in_cluster:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                configuration,
                try_refresh_token=False,
                token_filename=f"{access.service_account}/token",
                cert_filename=f"{access.service_account}/ca.crt",
            )
        else:
            await config.load_kube_config(
                config_file=access.kubeconfig or None,
                context=access.context or None,
                client_configuration=configuration,
                persist_config=False,
            )
    except Exception as error:
        raise ConfigError(f"cannot use the {what}: {_one_line(error)}") from error
    if not configuration.host:
        raise ConfigError(f"cannot use the {what}: it names no server")
    return configuration


def _kubeconfig(access: Access) -> str:
    """The file that is meant, as errors name it. Raises ConfigError where none is there. Reads folders: in a thread."""
    file = access.kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    # KUBECONFIG may name several, as for kubectl.
    if not any(Path(name).exists() for name in file.split(os.pathsep)):
        raise ConfigError(
            f"there is no kubeconfig {file}, and this is no pod; KUBECONFIG or REBALANCER_KUBECONFIG names one"
        )
    return f"kubeconfig {file}"


def _is_tls(configuration: Any) -> bool:
    return str(configuration.host).startswith("https")


def _tls(configuration: Any, access: Access) -> ssl.SSLContext:
    """Reads certificate files: in a thread."""
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the cluster's certificates: {_one_line(error)}") from error
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if not access.strict_x509:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _trust_also(context: ssl.SSLContext, configuration: Any) -> None:
    """Adds the certificate authorities, which somebody may have replaced, to those that are trusted already.

    The old ones stay trusted until a restart. A file that cannot be read changes nothing: the server stays refused.
    """
    if configuration.ssl_ca_cert:
        with suppress(OSError, ssl.SSLError):
            context.load_verify_locations(cafile=configuration.ssl_ca_cert)


def _identify(context: ssl.SSLContext, configuration: Any) -> None:
    """From now on connections are opened with the client certificate as it is now, if there is one."""
    if configuration.cert_file:
        with suppress(OSError, ssl.SSLError):
            context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)


class TokenFile:
    """A bearer token that somebody rotates in a file. An empty file in mid-rotation leaves the last token in use."""

    def __init__(self, path: str, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._monotonic = monotonic
        self._token = ""
        self._read_at = 0.0

    async def header(self, fresh: bool) -> str:
        """The Authorization header's value."""
        if fresh or not self._token or self._monotonic() - self._read_at > TOKEN_SECONDS:
            try:
                token = (await anyio.Path(self._path).read_text()).strip()
            except OSError as error:
                if not self._token:
                    raise ApiError(f"no token: {_one_line(error)}") from error
                token = ""
            self._token = token or self._token
            self._read_at = self._monotonic()
        return f"Bearer {self._token}" if self._token else ""


class Kubeconfig:
    """Credentials of a kubeconfig; read again, exec plugin and all, when the server refuses them.

    A client certificate goes into `tls`, and is used by the connections that are opened after that.
    """

    def __init__(self, access: Access, configuration: Any, tls: ssl.SSLContext | None = None) -> None:
        self._access = access
        self._tls = tls
        self._header = _authorization(configuration)

    async def header(self, fresh: bool) -> str:
        """The Authorization header's value, "" where a client certificate is the credential."""
        if fresh:
            try:
                found = await _load(self._access, in_cluster=False)
            except ConfigError as error:
                raise ApiError(str(error), status=401) from error
            self._header = _authorization(found)
            if self._tls is not None:
                await anyio.to_thread.run_sync(_identify, self._tls, found)
        return self._header


def _authorization(configuration: Any) -> str:
    return str(configuration.api_key.get("BearerToken") or "").strip()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
