"""Keys and certificates of a throw-away control plane: one authority, a leaf for every part, all for 127.0.0.1."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAVES = ("apiserver", "front-proxy", "virt-api", "virt-controller", "handler")
VALID = datetime.timedelta(days=2)
# Clocks of containers on one machine may differ a little.
BACKDATED = datetime.timedelta(hours=1)


def write_certificates(folder: Path) -> None:
    """Write ca.crt, NAME.crt and NAME.key for every leaf, and the pair that signs service account tokens.

    KubeVirt's parts watch this folder for renewed certificates, so nothing else may be written to it.
    """
    folder.mkdir(parents=True)
    authority_key = _key(folder / "ca.key")
    authority = _sign("rebalancer-test-ca", authority_key.public_key(), authority_key, issuer=None)
    _write(folder / "ca.crt", authority)
    for name in LEAVES:
        key = _key(folder / f"{name}.key")
        _write(folder / f"{name}.crt", _sign(name, key.public_key(), authority_key, issuer=authority.subject))
    accounts = _key(folder / "service-accounts.key").public_key()
    encoded = accounts.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-accounts.pub").write_bytes(encoded)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return key


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _sign(
    name: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, *, issuer: x509.Name | None
) -> x509.Certificate:
    """Certificate for `name`; an authority that signs itself when there is no issuer."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        # Python's strict verification wants both key identifiers.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_usage(authority=issuer is None), critical=True)
    )
    if issuer is not None:
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
        )
        builder = builder.add_extension(both, critical=False).add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
