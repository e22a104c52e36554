"""What PID 1 of the initrd may import: each module costs twenty times as much under emulation."""

from __future__ import annotations

import compileall
import shutil
import sys
from pathlib import Path

import pytest

import machineos
from machineos.boot.main import LATE_IMPORTS
from machineos.build.os import contents, initrdplan
from machineos.core.run import run
from waiting import PATIENCE

FORBIDDEN = {
    "urllib3", "yaml", "click", "rich", "pefile", "qemu", "pygit2", "http.client", "ssl", "asyncio",
    "xml", "sqlite3", "multiprocessing", "logging", "unittest",
}  # fmt: skip
# Allowed, but nothing at start needs them: they were at module level once.
NEEDLESS = {"shutil", "tempfile", "lzma", "bz2", "zipfile"}
SOURCE = Path(machineos.__file__).parent
SITE = next(path for path in sys.path if path.endswith("site-packages"))
# Records that are more than msgspec's: they judge their fields, are changed, or must not be
# shown. A dataclass costs the start twenty times what a struct does.
DATACLASSES = {
    "core/digest.py", "core/serviceid.py", "document/verify/images.py",
    "document/verify/published.py", "host/kernel/loopdev.py", "host/tpm/session.py",
}  # fmt: skip
# As /init does it, but for what it does then.
WHOLE = (
    "import sys; before = set(sys.modules); sys.modules['bcrypt'] = None; "
    "import machineos.boot.main, machineos.boot.runner, machineos.boot.machine; "
    "from machineos.boot import plan; plan.plan('run'); "
    "print(*sorted(set(sys.modules) - before), sep='\\n')"
)
# What is there when drivers begin to load; whatever comes later is imported beside that.
BEFORE_DRIVERS = """
import sys
sys.modules["bcrypt"] = None
from machineos.boot.main import start
class First:
    def __getattr__(self, name):
        return lambda *_: None
    def read_settings(self):
        return SETTINGS
    def read_command_line(self):
        return "quiet"
    def load_drivers(self, settings):
        print(*sorted(sys.modules), sep="\\n")
        sys.stdout.flush()
        import os
        os._exit(0)
start(First())
"""
SETTINGS = (
    b'{"mode":"run","policy_version":"0001","command_line":"quiet","kernel":"6",'
    b'"modules_volume":"","epoch":0,'
    b'"modules":[]}'
)


def imports(code: str, *, package: Path = SOURCE.parent) -> set[str]:
    """Run code in a fresh interpreter and return the lines that it prints."""
    env = {"PYTHONPATH": f"{package}:{SITE}"}
    # -S: without site, whose .pth files import things of their own.
    return set(run([sys.executable, "-S", "-c", code], timeout=PATIENCE, env=env).text.splitlines())


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Everything that a fresh interpreter has after it imported the bring-up."""
    return imports(WHOLE)


def test_it_was_imported(imported: set[str]) -> None:
    assert {
        "machineos.boot.runner",
        "machineos.boot.phases.unseal",
        "machineos.trust.seal.unseal",
        "cryptography.x509",
    } <= imported


@pytest.mark.parametrize("name", sorted(FORBIDDEN | NEEDLESS))
def test_nothing_of_this(imported: set[str], name: str) -> None:
    assert not {module for module in imported if module == name or module.startswith(f"{name}.")}


def test_our_own_layers_stay_below(imported: set[str]) -> None:
    layers = {name.split(".")[1] for name in imported if name.startswith("machineos.")}
    assert layers == {"boot", "core", "document", "errors", "host", "oci", "state", "trust"}


def test_nothing_of_the_fakes_is_needed(imported: set[str]) -> None:
    """The protocols of the host are for the type checker, and cost no import."""
    assert "machineos.boot.host" not in imported


def test_records_are_structs(imported: set[str]) -> None:
    paths = [SOURCE.parent / f"{name.replace('.', '/')}.py" for name in imported]
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in paths
        if path.is_relative_to(SOURCE) and path.is_file() and "@dataclass" in path.read_text()
    }
    assert found == DATACLASSES


def test_drivers_load_while_the_rest_is_imported() -> None:
    code = BEFORE_DRIVERS.replace("SETTINGS", repr(SETTINGS))
    early = imports(code)
    assert "machineos.boot.main" in early
    late = {"machineos.boot.runner", "machineos.boot.steps", "machineos.boot.machine", "pkgutil",
            "machineos.trust.seal.unseal", "cryptography", "machineos.boot.plan"}  # fmt: skip
    assert not late & early
    ours = {name for name in early if name.startswith("machineos.")}
    assert len(ours) <= 22, sorted(ours)


# -- what the initrd holds


def own_modules() -> set[str]:
    return {
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in (SOURCE / "boot").rglob("*.py")
    }


def test_what_is_imported_late_is_named_or_found() -> None:
    """The build traces these: what it does not see is not in the initrd."""
    code = initrdplan.TRACE.split("for module in list")[0].replace(
        'sys.path.insert(0, "/usr/lib/machineos/python")', ""
    )
    code += "print(*sys.modules, sep='\\n')"
    traced = imports(code)
    assert set(LATE_IMPORTS) <= traced
    assert own_modules() - {"machineos.boot.host"} <= traced


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our package as the initrd has it: its rooms, compiled, without a source."""
    folder = tmp_path_factory.mktemp("initrd")
    package = folder / "machineos"
    contents.copy(SOURCE, contents.INITRD, package)
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for path in package.rglob("*.py"):
        path.unlink()
    for cache in package.rglob("__pycache__"):
        shutil.rmtree(cache)
    return folder


def test_phases_are_found_without_their_sources(bytecode: Path) -> None:
    code = "from machineos.boot import plan; print(*[x.name for x in plan.found()], sep='\\n')"
    assert len(imports(code, package=bytecode)) == len(imports(code)) > 20


def test_the_rooms_of_the_initrd_hold_all_that_is_imported(
    bytecode: Path, imported: set[str]
) -> None:
    assert imports(WHOLE, package=bytecode) == imported
