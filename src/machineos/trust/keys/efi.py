"""Signed EFI binaries.

Invariant: ``sign_efi`` leaves a file only after the verifying program took it, and hands the
private key to the signing program in memory, never in a file on a disk.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import atomic
from machineos.core.run import perform
from machineos.errors import MissingError, SignatureError
from machineos.host.pack import sbsign
from machineos.trust.keys.pem import read_certificate
from machineos.trust.keys.x509 import key_pem
from machineos.trust.verify.chain import parse_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.core.secret import Secret
    from machineos.trust.keys.keyset import KeyPair


def sign_efi(
    source: Path, target: Path, pair: KeyPair, *, passphrase: Secret | None = None
) -> None:
    """Sign the EFI binary ``source`` with a key pair; ``target`` appears whole or not at all.

    Signatures that ``source`` carries stay. Raises: MissingError, UsageError (passphrase),
    SignatureError (the pair does not belong together, or the result does not verify), ToolError.
    """
    if not source.is_file():
        raise MissingError(f"{source} is not a file")
    key = pair.private_key(passphrase)
    if pair.certificate().public_key() != key.public_key():
        raise SignatureError(f"{pair.key_path} is not the key of {pair.cert_path}")
    with atomic(target, mode=0o644) as file, _in_memory(key_pem(key, None)) as descriptor:
        signed = Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        perform(
            sbsign.sign_command(
                source,
                signed,
                key=Path(f"/proc/self/fd/{descriptor}"),
                certificate=pair.cert_path,
                pass_fds=(descriptor,),
            )
        )
        _verify(signed, pair.cert_path, what=str(target))


def verify_efi(path: Path, certificate: Path) -> None:
    """Check that an EFI binary carries a signature by the key of ``certificate`` (a PEM file).

    Raises: MissingError, SignatureError (unsigned, by another key, or changed since), ToolError.
    """
    if not path.is_file():
        raise MissingError(f"{path} is not a file")
    _verify(path, certificate, what=str(path))


def _verify(path: Path, certificate: Path, *, what: str) -> None:
    parse_certificate(read_certificate(certificate), what=str(certificate))
    result = perform(sbsign.verify_command(path, certificate=certificate))
    outcome = sbsign.parse_verify(result)
    if not outcome.good:
        raise SignatureError(f"{what}: not signed by the key of {certificate}: {outcome.reason}")


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
