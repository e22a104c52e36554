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
from pathlib import Path
from typing import TYPE_CHECKING

import machineos
from machineos.build.os import contents
from machineos.build.os.initrdplan import (
    ENTRY,
    FOLDERS,
    MERGED,
    PACKAGE,
    PROGRAMS,
    PYTHON,
    TRACE,
    Base,
    choose_modules,
    file_name,
    loaded_as,
)
from machineos.core.run import run
from machineos.errors import ToolError
from machineos.host.pack import tools

if TYPE_CHECKING:
    from machineos.build.os.initrdplan import Modules

_TIMEOUT = 300.0


def build_base(root: Path, kernel: str, output: Path, *, work: Path, epoch: int) -> Base:
    """Write the base archive from a Debian tree that holds the interpreter and the kernel.

    ``root`` is changed: our package is put into it, and modules are indexed. Needs root (chroot).
    Raises: ToolError, MissingError.
    """
    stage = work / "initrd"
    shutil.rmtree(stage, ignore_errors=True)
    for folder in FOLDERS:
        (stage / folder).mkdir(parents=True, exist_ok=True)
    for folder in MERGED:
        (stage / folder).symlink_to(f"usr/{folder}")
    _add_python(root, stage)
    programs = [root / program for program in (*PROGRAMS, PYTHON)]
    extensions = list(stage.rglob("*.so"))
    for path in (*programs, *tools.libraries_of(root, (*programs, *extensions))):
        _copy(root, path, stage)
    (stage / "usr/bin/python3").symlink_to("python3.13")
    modules = choose_modules(tools.index_modules(root, kernel))
    _add_modules(modules, root / "usr/lib/modules" / kernel, stage)
    (stage / "init").write_bytes(ENTRY)
    (stage / "init").chmod(0o755)
    pack(stage, output, epoch=epoch, compress=True)
    return Base(
        output,
        kernel,
        loaded_as(modules.always),
        tuple((pattern, loaded_as(order)) for pattern, order in modules.drivers),
        {kind: loaded_as(order) for kind, order in modules.filesystems.items()},
        tuple((pattern, loaded_as(order)) for pattern, order in modules.watchdogs),
    )


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
    target = root / PACKAGE / "machineos"
    shutil.rmtree(target, ignore_errors=True)
    contents.copy(package, contents.INITRD, target)
    compiled = root / "tmp/pyc"
    shutil.rmtree(compiled, ignore_errors=True)
    compiled.mkdir(parents=True)
    result = run(["chroot", root, "/usr/bin/python3.13", "-I", "-B", "-c", TRACE], timeout=_TIMEOUT)
    for path in compiled.rglob("*.pyc"):
        destination = stage / path.relative_to(compiled)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)
    for name in result.text.splitlines():
        _copy(root, root / name.lstrip("/"), stage)
    phases = target / "boot/phases"
    for path in (target / "boot/main.py", *phases.glob("*.py")):
        if not (stage / path.relative_to(root)).with_suffix(".pyc").exists():
            raise ToolError(f"the initrd's own program was not compiled: {path.name}")


def _add_modules(modules: Modules, source: Path, stage: Path) -> None:
    target = stage / "usr/lib/machineos/boot/modules"
    target.mkdir(parents=True)
    for path in modules.paths:
        data = (source / path).read_bytes()
        unpacked = lzma.decompress(data) if path.endswith(".xz") else data
        (target / file_name(path)).write_bytes(unpacked)


def _copy(root: Path, path: Path, stage: Path) -> None:
    relative = path.relative_to(root)
    target = stage / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    real = path.resolve()
    shutil.copyfile(root / str(path.readlink()).lstrip("/") if not real.exists() else real, target)
    target.chmod(0o755 if os.access(real, os.X_OK) else 0o644)
