"""The certificates of TLS: whom one believes besides the system's CAs, and who one says one is.

Owns the folders ``certs.d/HOST[:PORT]`` as containers and Docker have them (containers-certs.d(5)):
``*.crt`` are CAs, ``NAME.cert`` with ``NAME.key`` is a client's. The system's own CAs, with
``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, are OpenSSL's affair.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import DocumentError, Fault, MissingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SYSTEM = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
_MOST = 100  # files of one folder


@dataclass(frozen=True, slots=True)
class Certificates:
    """``ca`` are PEM files with CAs; ``client`` are pairs of certificate and private key."""

    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()

    def context(self) -> ssl.SSLContext:
        """Return the settings of a connection that believes the system's CAs and these.

        Raises: MissingError, DocumentError (a file that is no certificate or key).
        """
        context = ssl.create_default_context()
        for path in self.ca:
            with _named(path):
                context.load_verify_locations(path)
        for certificate, key in self.client:
            with _named(certificate):
                # Without a terminal to ask at, and nobody to be asked twice.
                context.load_cert_chain(certificate, key, password=lambda: "")
        return context


NONE = Certificates()


class _named:  # noqa: N801 (a context manager that is used as a function)
    """Says of which file an error of OpenSSL is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise MissingError(f"{self._path} does not exist") from error
        if isinstance(error, ssl.SSLError):
            fault = Fault("", 0, "is not a certificate in PEM, or not of the key beside it")
            raise DocumentError(str(self._path), [fault]) from error


def default_folders(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where ``certs.d`` is looked for, first match first, as podman and skopeo do."""
    user = environ.get("HOME")
    return ((Path(user) / ".config/containers/certs.d",) if user else ()) + _SYSTEM


def certificates_for(
    host: str, folders: Sequence[Path], ca_file: Path | None = None
) -> Certificates:
    """Return the certificates for the registry ``host``: those in the first of ``folders`` that has
    one for it, and ``ca_file``. Raises: MissingError (a certificate without its key)."""
    named = (ca_file,) if ca_file is not None else ()
    folder = next((path for path in (base / host for base in folders) if path.is_dir()), None)
    if folder is None:
        return Certificates(named)
    files = sorted(folder.iterdir())[:_MOST]
    pairs = tuple((path, path.with_suffix(".key")) for path in files if path.suffix == ".cert")
    for certificate, key in pairs:
        if not key.exists():
            raise MissingError(f"{certificate} has no key beside it", hint=f"looked for {key}")
    return Certificates((*named, *(path for path in files if path.suffix == ".crt")), pairs)
