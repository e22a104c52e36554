"""The initrd: Python's closure plus our bring-up, no shell, the same bytes for the same input.

Owns what goes in. The base archive (interpreter, libraries, tools, kernel modules, our package) is
the same for every product and every mode; a small second archive holds the settings and the trust
anchors of one product. The kernel unpacks both in order (kernel docs, early-userspace
buffer format).
"""

from __future__ import annotations

import lzma
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import machineos
from machineos.build.os import contents
from machineos.core.run import run
from machineos.errors import MissingError, ToolError
from machineos.host.pack import depmod, elf

if TYPE_CHECKING:
    from collections.abc import Sequence

# Needed in every mode, in every machine. Loading one costs a signature check, so no more than that.
MODULES = (
    "loop", "dm-mod", "dm-verity", "dm-crypt", "dm-integrity", "squashfs", "overlay", "xts",
    "authenc", "aesni-intel", "sha256-ssse3",
)  # fmt: skip
# File systems that are loaded when something is to be mounted with them.
FILESYSTEMS = {
    "erofs": ("erofs",),
    "iso9660": ("isofs",),
    "vfat": ("vfat", "nls_cp437", "nls_ascii"),
}
# Disk and optical drivers: loaded when a device that they serve is there.
DRIVERS = (
    "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod", "ahci", "ata_piix", "nvme", "xhci-pci",
    "usb-storage", "uas", "hv_storvsc", "vmw_pvscsi", "mptspi", "megaraid_sas", "xen-blkfront",
)  # fmt: skip
_PROGRAMS = ("usr/sbin/cryptsetup",)
_PYTHON = "usr/bin/python3.13"
_PACKAGE = "usr/lib/machineos/python"
_TIMEOUT = 300.0
_ENTRY = b"""#!/usr/bin/python3 -IBS
import gc, os, sys
gc.disable()  # what lives for seconds needs no collector
# OpenSSL's legacy algorithms are not in this initrd, and cryptography must not look for them.
os.environ["CRYPTOGRAPHY_OPENSSL_NO_LEGACY"] = "1"
sys.path[:] = ["/usr/lib/machineos/python", "/usr/lib/python3.13",
               "/usr/lib/python3.13/lib-dynload", "/usr/lib/python3/dist-packages"]
from machineos.boot.main import main
main()
"""
# Runs in the tree's own interpreter: imports the bring-up, lists every file that took, and compiles
# each source to bytecode that is never checked against a source (there is none in the initrd).
_TRACE = """
import importlib, py_compile, sys
sys.path.insert(0, "/usr/lib/machineos/python")
sys.modules["bcrypt"] = None  # cryptography wants it for SSH keys, and does without it
import machineos.boot.main
for name in machineos.boot.main.LATE_IMPORTS:
    importlib.import_module(name)
machineos.boot.plan.found()  # every phase, for whichever mode
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None)
    if path is None or module.__name__ == "__main__":
        continue
    if path.endswith(".py"):
        py_compile.compile(path, cfile="/tmp/pyc" + path + "c", dfile=path, doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    else:
        print(path)
"""


@dataclass(frozen=True, slots=True)
class Base:
    """The part that does not depend on the product. ``drivers``: (alias pattern, module files);
    ``filesystems``: type of mount(2) -> module files."""

    archive: Path
    kernel: str
    modules: tuple[str, ...]
    drivers: tuple[tuple[str, tuple[str, ...]], ...]
    filesystems: dict[str, tuple[str, ...]]


def build_base(root: Path, kernel: str, output: Path, *, work: Path, epoch: int) -> Base:
    """Write the base archive from a Debian tree that holds the interpreter and the kernel.

    ``root`` is changed: our package is put into it, and modules are indexed. Needs root (chroot).
    Raises: ToolError, MissingError.
    """
    stage = work / "initrd"
    shutil.rmtree(stage, ignore_errors=True)
    for folder in ("dev", "proc", "sys", "run", "sysroot", "tmp", "usr/bin", "usr/sbin", "etc"):
        (stage / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (stage / folder).symlink_to(f"usr/{folder}")
    _add_python(root, stage)
    programs = [root / program for program in (*_PROGRAMS, _PYTHON)]
    extensions = list(stage.rglob("*.so"))
    for path in (*programs, *elf.closure(root, (*programs, *extensions))):
        _copy(root, path, stage)
    (stage / "usr/bin/python3").symlink_to("python3.13")
    modules, drivers, filesystems = _add_modules(root, kernel, stage)
    (stage / "init").write_bytes(_ENTRY)
    (stage / "init").chmod(0o755)
    pack(stage, output, epoch=epoch, compress=True)
    return Base(output, kernel, modules, drivers, filesystems)


def pack(tree: Path, output: Path, *, epoch: int, compress: bool) -> None:
    """Write ``tree`` as a newc archive: sorted, owned by root, all times ``epoch``."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    for path in (tree, *(tree / name for name in names)):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    raw = output.with_suffix(".cpio")
    with raw.open("wb") as file:
        run(
            ["cpio", "--create", "--format=newc", "--null", "--quiet", "--reproducible",
             "--renumber-inodes", "--owner=+0:+0"],
            input=b"".join(name.encode() + b"\0" for name in names),
            stdout=file, cwd=tree, timeout=_TIMEOUT,
        )  # fmt: skip
    if compress:
        run(["zstd", "-q", "-f", "-19", "-T0", "--rm", "-o", output, raw], timeout=_TIMEOUT)
    else:
        raw.replace(output)


def _add_python(root: Path, stage: Path) -> None:
    package = Path(machineos.__file__).parent
    target = root / _PACKAGE / "machineos"
    shutil.rmtree(target, ignore_errors=True)
    contents.copy(package, contents.INITRD, target)
    compiled = root / "tmp/pyc"
    shutil.rmtree(compiled, ignore_errors=True)
    compiled.mkdir(parents=True)
    result = run(
        ["chroot", root, "/usr/bin/python3.13", "-I", "-B", "-c", _TRACE], timeout=_TIMEOUT
    )
    for path in compiled.rglob("*.pyc"):
        destination = stage / path.relative_to(compiled)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)
    for name in result.text.splitlines():
        _copy(root, root / name.lstrip("/"), stage)
    phases = target / "boot/phases"
    wanted = [target / "boot/main.py", *phases.glob("*.py")]
    for path in wanted:
        if not (stage / path.relative_to(root)).with_suffix(".pyc").exists():
            raise ToolError(f"the initrd's own program was not compiled: {path.name}")


def _add_modules(
    root: Path, kernel: str, stage: Path
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...], dict[str, tuple[str, ...]]]:
    table = depmod.read_table(root, kernel)
    source = root / "usr/lib/modules" / kernel
    target = stage / "usr/lib/machineos/boot/modules"
    target.mkdir(parents=True)

    def install(paths: Sequence[str]) -> tuple[str, ...]:
        names = []
        for path in paths:
            names.append(Path(path).name.removesuffix(".xz"))
            if not (target / names[-1]).exists():
                data = (source / path).read_bytes()
                (target / names[-1]).write_bytes(
                    lzma.decompress(data) if path.endswith(".xz") else data
                )
        return tuple(names)

    drivers = []
    for name in DRIVERS:
        try:
            order = install(table.load_order([name]))
        except MissingError:  # not every kernel flavour has every driver
            continue
        key = name.replace("-", "_")
        drivers += [(pattern, order) for pattern, owner in table.aliases if owner == key and order]
    needed = {kind: install(table.load_order(names)) for kind, names in FILESYSTEMS.items()}
    return install(table.load_order(MODULES)), tuple(drivers), needed


def _copy(root: Path, path: Path, stage: Path) -> None:
    relative = path.relative_to(root)
    target = stage / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()
    shutil.copyfile(root / str(path.readlink()).lstrip("/") if not real.exists() else real, target)
    target.chmod(0o755 if os.access(real, os.X_OK) else 0o644)
