"""What a key may sign, a module, a kernel or a volume, and what a guest makes of it."""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from machineos.build.os import appliance
from machineos.build.recipe.filesystem import make_layer
from machineos.core.run import perform, run
from machineos.core.word import RootHash
from machineos.host.pack import sbsign
from machineos.trust.keys.keyset import KeyPair
from machineos.trust.keys.signer import FileSigner
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from machineos.build.recipe.veritylayer import VerityLayer
    from vm.appliance import Bench
    from vm.guest import Guest

# Who signs, by name; None for nobody.
Pairs = Mapping[str, KeyPair | None]
_EPOCH = 1_767_225_600
_ENDS = {"module": "ko", "memory": "ko", "kernel": "efi"}


def modules(bench: Bench, pairs: Pairs, folder: Path, programs: Mapping[str, bytes]) -> VerityLayer:
    """Return a layer with Debian's module ``dummy`` by each signer, ``true``, and ``programs``."""
    tree = folder / "tree"
    tree.mkdir()
    root = appliance.boot_root(bench.shop())
    (packed,) = root.glob("usr/lib/modules/*/kernel/drivers/net/dummy.ko.xz")
    data = lzma.decompress(packed.read_bytes())
    end = data.rindex(b"~Module signature appended~")
    unsigned = data[: end - 12 - int.from_bytes(data[end - 4 : end], "big")]
    for name, pair in pairs.items():
        (tree / f"{name}.ko").write_bytes(_module(unsigned, pair, folder))
    shutil.copy("/usr/bin/busybox", tree / "true")
    for name, program in programs.items():
        (tree / name).write_bytes(program)
        (tree / name).chmod(0o755)
    return make_layer(tree, folder / "layer", epoch=_EPOCH)


def _module(unsigned: bytes, pair: KeyPair | None, folder: Path) -> bytes:
    """Return a module with a signature as the kernel's sign-file makes it."""
    if pair is None:
        return unsigned
    (folder / "module").write_bytes(unsigned)
    (folder / "cert.pem").write_bytes(pair.certificate_pem())
    signed = run(
        ["openssl", "cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256",
         "-outform", "DER", "-in", folder / "module", "-signer", folder / "cert.pem",
         "-inkey", pair.key_path], timeout=PATIENCE,
    ).stdout  # fmt: skip
    # struct module_signature: PKCS#7, and the length of it
    tail = bytes([0, 0, 2, 0, 0, 0, 0, 0]) + len(signed).to_bytes(4, "big")
    return unsigned + signed + tail + b"~Module signature appended~\n"


def kernels(bench: Bench, pairs: Pairs, folder: Path) -> VerityLayer:
    """Return a layer with the kernel of the bench by each signer."""
    tree = folder / "tree"
    tree.mkdir()
    (vmlinuz,) = appliance.boot_root(bench.shop()).glob("boot/vmlinuz-*")
    plain = Path(shutil.copy(vmlinuz, tree / "nobody.efi"))
    run(["sbattach", "--remove", plain], timeout=PATIENCE, check=False)
    for name, pair in pairs.items():
        if pair is not None:  # not by sign_efi, which refuses the key of a CA
            argv = sbsign.sign_command(
                plain, tree / f"{name}.efi", key=pair.key_path, certificate=pair.cert_path
            )
            perform(argv)
    return make_layer(tree, folder / "layer", epoch=_EPOCH)


@contextmanager
def opened(guest: Guest, layer: VerityLayer, pair: KeyPair | None) -> Iterator[None]:
    """A layer with a signature that opens it, mounted in a guest."""
    guest.put(layer.path.read_bytes(), "/run/layer")
    assert _open(guest, layer, pair) == ""
    try:
        yield
    finally:
        _close(guest)
        guest.must("rm /run/layer")


def _open(guest: Guest, layer: VerityLayer, pair: KeyPair | None) -> str:
    """Map a layer that the guest has, and mount it; return why that failed."""
    signature = ""
    if pair is not None:
        data = FileSigner.open(pair).sign_root_hash(RootHash(layer.root_hash))
        guest.put(data, "/run/sig")
        signature = "--root-hash-signature=/run/sig"
    done = guest.sh(
        f"veritysetup open --hash-offset={layer.data_size} {signature} /run/layer signed"
        f" /run/layer {layer.root_hash} 2>&1 && mkdir -p /run/signed"
        " && mount -t squashfs -o ro /dev/mapper/signed /run/signed"
    )
    if done:
        return ""
    return "ENOKEY" if os.strerror(errno.ENOKEY) in done.output else done.output


def _close(guest: Guest) -> None:
    guest.must("umount /run/signed && veritysetup close signed")


# In the folder of a layer that is mounted. What was taken is let go again.
LOADING = r"""
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
def answer(result): return "taken" if result == 0 else errno.errorcode[ctypes.get_errno()]
def module(path):
    said = answer(libc.syscall(313, os.open(path, os.O_RDONLY), b"", 0))  # finit_module
    libc.syscall(176, b"dummy", os.O_NONBLOCK)
    return said
def memory(path):
    data = open(path, "rb").read()
    said = answer(libc.syscall(175, data, len(data), b""))  # init_module
    libc.syscall(176, b"dummy", os.O_NONBLOCK)
    return said
def kernel(path):  # kexec_file_load without an initrd, and unload
    said = answer(libc.syscall(320, os.open(path, os.O_RDONLY), -1, 0, b"", 4))
    libc.syscall(320, -1, -1, 0, b"", 1 | 4)
    return said
print(json.dumps({name: KIND(f"/run/signed/{name}.END") for name in NAMES}))
"""


def tried(
    guest: Guest, kind: Literal["module", "memory", "kernel"], names: Iterable[str]
) -> dict[str, str]:
    """Return how loading ends of what each has signed, in the layer that is open."""
    code = LOADING.replace("KIND", kind).replace("END", _ENDS[kind])
    answers: dict[str, str] = json.loads(guest.python(code.replace("NAMES", repr([*names]))))
    return answers


def volumes(guest: Guest, layer: VerityLayer, pairs: Pairs) -> dict[str, str]:
    """Return how a program of a volume ends, by the signer of the volume."""
    found = {}
    guest.put(layer.path.read_bytes(), "/run/layer")
    for name, pair in pairs.items():
        found[name] = _open(guest, layer, pair)
        if not found[name]:
            done = guest.sh("/run/signed/true")
            found[name] = {0: "RAN", 126: "EACCES"}.get(done.status, done.output)
            _close(guest)
    guest.must("rm /run/layer")
    return found
