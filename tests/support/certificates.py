"""A certificate authority for a test run, created with openssl."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

from tests.support.optional import require

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """A CA in `folder`, which issues certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._openssl = require("openssl", "apt-get install openssl", "openssl")
        self._folder = folder
        self._name = name
        self._issued = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / f"{name}-ca.pem"
        self._key = folder / f"{name}-ca.key"
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-days", "2", "-keyout", self._key, "-out", self.certificate,
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign",
        )  # fmt: skip

    def issue(self, subject: str, *, passphrase: str = "") -> tuple[Path, Path]:
        """Sign a certificate for 127.0.0.1 and localhost; return its path and its key's."""
        self._issued += 1
        stem = self._folder / f"{self._name}-{self._issued}"
        certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            *(("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)),
            "-subj", f"/CN={subject}", "-days", "1", "-keyout", key, "-out", certificate,
            "-CA", self.certificate, "-CAkey", self._key,
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
        return certificate, key

    def client(self, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """Trust this CA, and show a certificate if one is given."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return context

    def _run(self, *arguments: str | Path) -> None:
        ran = subprocess.run(
            [self._openssl, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stderr
