"""A Kafka for the tests that lets in only who knows a password, over TLS: SASL_SSL.

Certificates are made by the openssl command, each time anew.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.kafka import EmbeddedKafka, Security

USER = "noctule"
PASSWORD = "quokka-7-umbrella"  # noqa: S105 - of a Kafka that lives as long as a test
CERTIFICATE = "ca.pem"
OTHER_CERTIFICATE = "other-ca.pem"

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def secured(folder: Path) -> Security:
    """Make an authority, the broker's certificate, and an authority that signed nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CERTIFICATE, OTHER_CERTIFICATE):
        _make_authority(folder / name)
    _make_key_store(folder)
    stores = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / CERTIFICATE),
    }
    logins = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f'{_PLAIN} required username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
        ),
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
    }
    return Security("SASL_SSL", {**stores, **logins}, client(folder))


def client(folder: Path) -> dict[str, str]:
    """Return the settings (``kafka.client``) of one who is let in."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(folder / CERTIFICATE),
    }


@dataclass(frozen=True)
class SecuredKafka:
    """A running one, and the folder of its certificates."""

    kafka: EmbeddedKafka
    folder: Path

    @property
    def bootstrap_servers(self) -> str:
        return self.kafka.bootstrap_servers

    def client(self, **changes: str) -> dict[str, str]:
        """Return ``kafka.client``; in the names of `changes`, write ``__`` for a dot."""
        return client(self.folder) | {k.replace("__", "."): v for k, v in changes.items()}

    def whole_client(self, **changes: str) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap_servers, **self.client(**changes)}


def _make_authority(certificate: Path) -> None:
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", f"/CN={certificate.stem}"),
        *("-keyout", f"{certificate.with_suffix('.key')}", "-out", f"{certificate}"),
    )


def _make_key_store(folder: Path) -> None:
    """Write ``broker.pem``: the key, then its certificate, for 127.0.0.1."""
    key, request, signed = (folder / f"broker.{end}" for end in ("key", "csr", "crt"))
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\n")
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", f"{key}", "-out", f"{request}"),
    )
    authority = folder / CERTIFICATE
    _openssl(
        *("x509", "-req", "-in", f"{request}", "-days", "2", "-out", f"{signed}"),
        *("-CA", f"{authority}", "-CAkey", f"{authority.with_suffix('.key')}", "-CAcreateserial"),
        *("-extfile", f"{extensions}"),
    )
    (folder / "broker.pem").write_text(key.read_text() + signed.read_text())


def _openssl(*arguments: str) -> None:
    subprocess.run(["/usr/bin/env", "openssl", *arguments], check=True, capture_output=True)
