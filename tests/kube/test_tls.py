"""A real TLS connection: certificates that are not accepted are a sentence, and a CA that is replaced is found."""

from __future__ import annotations

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rebalancer.kube.client import Access, connect
from rebalancer.kube.outcome import Answer, ApiError

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:PORT", certificate-authority: CA}}]
"""


def certificate(name: str, issuer: Pair | None = None, *, days: int = 1) -> Pair:
    """A CA, or a server certificate for 127.0.0.1 by `issuer`; with `days` below 0 it has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signer = issuer[1] if issuer else key
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    usage = x509.KeyUsage(True, False, False, False, False, issuer is None, issuer is None, False, False)
    builder = builder.add_extension(usage, critical=True)
    return (builder.add_extension(alternative, critical=False) if issuer else builder).sign(
        signer, hashes.SHA256()
    ), key


def write(path: Path, *found: x509.Certificate | ec.EllipticCurvePrivateKey) -> str:
    pem = serialization.Encoding.PEM
    plain = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    parts = [p.public_bytes(pem) if isinstance(p, x509.Certificate) else p.private_bytes(*plain) for p in found]
    path.write_bytes(b"".join(parts))
    return str(path)


@pytest.mark.parametrize(
    ("before", "days", "words"),
    [
        ("another", 1, "the API server's certificate is not accepted: unable to get local issuer certificate"),
        ("right", -1, "the API server's certificate is not accepted: certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_a_sentence_until_the_ca_is_replaced(
    tmp_path: Path, before: str, days: int, words: str
) -> None:
    right = certificate("right")
    known = right if before == "right" else certificate("another")
    served = certificate("server", right, days=days)
    ca = tmp_path / "ca.crt"
    write(ca, known[0])

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({})

    async def main() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(write(tmp_path / "server.pem", *served))
        runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        kubeconfig = tmp_path / "kubeconfig"
        port = str(runner.addresses[0][1])
        kubeconfig.write_text(KUBECONFIG.replace("PORT", port).replace("CA", str(ca)), encoding="utf-8")
        try:
            async with await connect(Access(kubeconfig=str(kubeconfig)), monotonic=anyio.current_time) as api:
                for _ in range(2):
                    with pytest.raises(ApiError) as refused:
                        await api.get("/api/v1/nodes")
                    assert words in str(refused.value)
                ca.write_text("nonsense", encoding="utf-8")
                with pytest.raises(ApiError, match="not accepted"):
                    await api.get("/api/v1/nodes")
                write(ca, right[0])
                if days < 0:
                    return
                with pytest.raises(ApiError, match="not accepted"):
                    await api.get("/api/v1/nodes")
                assert isinstance(await api.get("/api/v1/nodes"), Answer)
        finally:
            await runner.cleanup()

    anyio.run(main)


def inline(*found: x509.Certificate | ec.EllipticCurvePrivateKey, folder: Path) -> str:
    """PEM as a kubeconfig has it in itself."""
    return base64.b64encode(Path(write(folder / "inline.pem", *found)).read_bytes()).decode()


def test_what_a_kubeconfig_has_in_itself_is_renewed_with_it(tmp_path: Path) -> None:
    """Certificate authorities and client certificate; the server knows one client, and another one later."""
    first, second = certificate("first"), certificate("second")
    clients = [certificate(name, first) for name in ("old", "new")]
    welcome = ["old"]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        subject = dict(pair for (pair,) in request.transport.get_extra_info("peercert")["subject"])
        return web.json_response({}, status=200 if subject["commonName"] in welcome else 401)

    def kubeconfig(port: int, authority: Pair, client: Pair) -> None:
        text = KUBECONFIG.replace("PORT", str(port))
        text = text.replace(
            "certificate-authority: CA", f"certificate-authority-data: {inline(authority[0], folder=tmp_path)}"
        )
        data = [inline(part, folder=tmp_path) for part in client]
        text = text.replace("token: t", f"client-certificate-data: {data[0]}, client-key-data: {data[1]}")
        (tmp_path / "kubeconfig").write_text(text, encoding="utf-8")

    async def main() -> None:
        authorities = write(tmp_path / "first.pem", first[0])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authorities)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(write(tmp_path / "server.pem", *certificate("server", first)))
        runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        kubeconfig(port, first, clients[0])
        try:
            async with await connect(
                Access(kubeconfig=str(tmp_path / "kubeconfig")), monotonic=anyio.current_time
            ) as api:
                assert isinstance(await api.get("/api/v1/nodes"), Answer)
                welcome[:] = ["new"]
                with pytest.raises(ApiError, match="401, the credentials are not accepted"):
                    await api.get("/api/v1/nodes")
                kubeconfig(port, second, clients[1])
                context.load_cert_chain(write(tmp_path / "server.pem", *certificate("server", second)))
                with pytest.raises(ApiError, match="certificate is not accepted"):
                    await api.get("/api/v1/nodes")
                for _ in range(2):
                    found = await api.get("/api/v1/nodes")
                assert isinstance(found, Answer)
        finally:
            await runner.cleanup()

    anyio.run(main)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_write_that_is_given_up_is_cut_off(tmp_path: Path, scheme: str) -> None:
    """A connection that is closed in good order is delivered to its end by the kernel, however long that takes: a
    network that heals would bring a write of ours when the lease has long gone."""
    authority = certificate("right")
    write(tmp_path / "ca.crt", authority[0])
    context = None
    if scheme == "https":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(write(tmp_path / "server.pem", *certificate("server", authority)))

    async def main() -> str:
        ends: list[str] = []
        ended = anyio.Event()

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            answers = asyncio.create_task(pump(back, writer))
            ends.append(await pump(reader, forth))
            answers.cancel()
            for open_writer in (forth, writer):
                open_writer.close()
            ended.set()

        server = await asyncio.start_server(swallow, "127.0.0.1", 0, ssl=context)
        between = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = str(between.sockets[0].getsockname()[1])
        kubeconfig = tmp_path / "kubeconfig"
        text = KUBECONFIG.replace("https", scheme).replace("PORT", port).replace("CA", str(tmp_path / "ca.crt"))
        kubeconfig.write_text(text, encoding="utf-8")
        async with await connect(Access(kubeconfig=str(kubeconfig)), monotonic=anyio.current_time) as api:
            with pytest.raises(ApiError, match="no answer within"):
                await api.create("/api/v1/nodes", {}, timeout_seconds=0.5)
            with anyio.fail_after(1):
                await ended.wait()
        for listening in (server, between):
            listening.close()
        return ends[0]

    assert anyio.run(main) == "cut off"


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Passes everything on; how it ended."""
    try:
        while text := await reader.read(2**16):
            writer.write(text)
    except ConnectionError:
        return "cut off"
    return "closed"
