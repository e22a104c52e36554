"""The control of the lock: the same kernel and the same initrd, signed by the same keys, but what
locks the running system is left out. What a lock refuses has to work here, or its test could not
fail."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.boot.phases import lock, privileges
from machineos.build.os import appliance, initrd
from machineos.build.os.bootimage import Options, settings_of
from machineos.build.os.bootkit import Anchored
from machineos.build.os.initrdplan import PACKAGE
from machineos.core.run import run
from vm.attacks import KERNELS, rebuilt
from waiting import PATIENCE

if TYPE_CHECKING:
    from vm.appliance import Bench
    from vm.attacks import Victim

SETTINGS = "usr/lib/machineos/boot/settings.json"
POLICY = "usr/lib/machineos/boot/ipe-closed.p7s"
OPEN_POLICY = b"policy_name=machineos policy_version=1.1.1\nDEFAULT action=ALLOW\n"
LOCKING = ("proc_mem.force_override=", "initcall_blacklist=", "lockdown=", "ia32_emulation=")
# Of each phase, what makes it lock, and what stands there instead.
UNLOCKED = {
    lock: ("for name, value in SYSCTLS:", "for name, value in ():"),
    privileges: ("yield from ask(DropMacAdmin())", "yield from ()"),
}


def unlock(victim: Victim, bench: Bench, folder: Path) -> None:
    """Give a machine that is off the boot image without a lock."""
    stage = folder / "stage"

    def change(sections: dict[str, bytes]) -> None:
        line = sections[".cmdline"].rstrip(b"\0").decode()
        words = [word for word in line.split() if not word.startswith(LOCKING)]
        assert len(words) == len(line.split()) - len(LOCKING)
        sections[".cmdline"] = " ".join(words).encode() + b"\0"
        _stage(bench, stage, " ".join(words))
        archive = folder / "unlocked.cpio.zst"
        initrd.pack(stage, archive, epoch=0, compress=True)
        # The kernel unpacks the archives in their order: the files of the last one win.
        have = sections[".initrd"]
        sections[".initrd"] = have + bytes(-len(have) % 4) + archive.read_bytes()

    rebuilt(bench, folder / "unlocked.efi", change=change)
    victim.partition("esp").put(folder / "unlocked.efi", KERNELS[0])


def _stage(bench: Bench, stage: Path, line: str) -> None:
    """Lay out the files of the initrd that are other ones."""
    anchored = Anchored(bench.keyset)
    root = appliance.boot_root(bench.shop())
    base = appliance.initrd_base(root, _kernel(root), bench.shop())
    _write(stage / POLICY, anchored.signer("uefi-db").sign_content(OPEN_POLICY))
    volume = appliance.modules_layer(root, base.kernel, bench.shop())
    options = Options(banner=bench.shop().banner, epoch=bench.shop().epoch)
    settings = msgspec.to_builtins(settings_of("run", base, volume.root_hash, options))
    settings["command_line"] = line
    _write(stage / SETTINGS, json.dumps(settings).encode())
    for module, (words, instead) in UNLOCKED.items():
        source = inspect.getsource(module)
        assert source.count(words) == 1
        _compile(root, source.replace(words, instead), Path(str(module.__file__)).name, stage)


def _compile(root: Path, source: str, name: str, stage: Path) -> None:
    """Compile with the interpreter of the initrd, as its builder does."""
    place = root / "tmp" / name
    place.write_text(source)
    path = f"/{PACKAGE}/machineos/boot/phases/{name}"
    code = (
        f"import py_compile; py_compile.compile('/tmp/{name}', '/tmp/{name}c', {path!r}, True,"
        " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
    )
    run(["chroot", root, "/usr/bin/python3.13", "-I", "-c", code], timeout=PATIENCE)
    target = stage / f"{path.lstrip('/')}c"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(f"{place}c", target)
    place.unlink()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _kernel(root: Path) -> str:
    (name,) = (path.name for path in (root / "usr/lib/modules").iterdir())
    return name
