"""The certificate of one run, which all sides of its cluster show and ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_SLACK = timedelta(days=2)
"""How far a host's clock may be off: Dask's own temporary certificate begins this very second."""
_LIFE = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Secret:
    """A certificate that signs itself, and its key, as PEM: who has both belongs to the run."""

    certificate: str
    key: str

    def security(self) -> Any:
        """As Dask takes it, for each of its roles."""
        both = {"cert": self.certificate, "key": self.key}
        return import_module("distributed").Security(
            require_encryption=True,
            tls_ca_file=self.certificate,
            **{
                f"tls_{role}_{name}": value
                for role in ("client", "scheduler", "worker")
                for name, value in both.items()
            },
        )


def new_secret() -> Secret:
    """A secret that nobody has yet; it is on no disk."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vmtest-run")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret(certificate.public_bytes(Encoding.PEM).decode(), private.decode())
