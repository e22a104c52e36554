"""What a launch needs besides the machine: firmware variables, media, small disks."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.media.installmedia import build_media
from machineos.build.os.workshop import media_folder
from machineos.build.recipe.stageplan import DEFAULT_EPOCH
from machineos.core.files import locked, read_bounded
from machineos.errors import MissingError
from machineos.host.pack import tools
from machineos.host.virt.uefivars import Enrolled
from machineos.trust.keys.x509 import key_pem, load_key
from machineos.vm.provider import SecureBootKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.core.clock import Clock
    from machineos.core.secret import Secret
    from machineos.oci.model.place import Place
    from machineos.trust.keys.keyset import KeyPair, Keyset, Project
    from machineos.vm.provider import Provider

SMALL_DISK = 20 << 20
_MAX_KEY = 1 << 16
_MEMORY = "/dev/shm"  # noqa: S108 (a private folder is made in it)


def uefi_variables(keyset: Keyset, provider: Provider) -> Path:
    """Return the variable store with the keyset's keys enrolled, made when it is not there yet.

    Raises: MissingError, ToolError.
    """
    path = keyset.bootkit / "ovmf" / "ovmf-vars.fd"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = []
        for role in ("uefi-pk", "uefi-kek", "uefi-db"):
            pair = keyset.key(role)
            if pair.guid is None:
                raise MissingError(f"keyset {keyset.name}: {role} has no guid")
            keys.append(Enrolled(pair.guid, pair.cert_path))
        provider.write_variables(path, SecureBootKeys(*keys))
    return path


@contextmanager
def media_for(
    place: Place,
    keyset: Keyset,
    project: Project,
    *,
    passphrase: Secret | None,
    variant: str,
    clock: Clock,
    say: Callable[[str], None],
) -> Iterator[dict[str, Path]]:
    """Yield the media by name: for an OCI layout an install medium that holds it, else one that
    does not and a small disk (``url``) that says where to go.

    The media stay in the keyset's artifacts, so that hardware can be installed from them too. What
    is yielded are second names of theirs: another launch may build its own meanwhile.

    Raises: MissingError (hostfs or bootkit not built), VerificationError, ToolError.
    """
    artifacts = media_folder(keyset.root, variant)
    artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".launch-", dir=artifacts) as name:
        folder = Path(name)
        with locked(artifacts / ".lock", what=f"the media in {artifacts}", wait=True):
            built = build_media(
                keyset,
                project,
                output=artifacts,
                passphrase=passphrase,
                manifest=place.local,
                clock=clock,
                say=say,
                variant=variant,
            )
            media = {kind: folder / path.name for kind, path in built.items()}
            for kind, path in built.items():
                media[kind].hardlink_to(path)
        if place.url:
            text, media["url"] = folder / "url.txt", folder / "install.vfat"
            text.write_text(place.url + (" plain-http" if place.plain_http else "") + "\n")
            _small_disk(media["url"], "inst-data", {"url.txt": text})
        yield media


@contextmanager
def identity_disk(pair: KeyPair, passphrase: Secret | None) -> Iterator[Path]:
    """Yield the small disk with a device identity. It holds a private key in clear, so it lives in
    memory, in a folder of our own, mode 0600, and is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="machineos-identity-", dir=_MEMORY) as name:
        plain, image = Path(name) / "privkey.pem", Path(name) / "sudi.vfat"
        key = load_key(read_bounded(pair.key_path, _MAX_KEY), passphrase, what=str(pair.key_path))
        _write_private(plain, key_pem(key, None))
        _write_private(image, b"")
        _small_disk(image, "trust-data", {"cert.pem": pair.cert_path, "privkey.pem": plain})
        yield image


def _small_disk(image: Path, label: str, files: dict[str, Path]) -> None:
    tools.make_fat(image, label=label, files=files, epoch=DEFAULT_EPOCH, size=SMALL_DISK)


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
