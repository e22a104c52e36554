"""What PID 1 of the initrd may import: each module costs twenty times as much under emulation."""

from __future__ import annotations

import sys

import pytest

from machineos.core.run import run

FORBIDDEN = {
    "urllib3", "yaml", "click", "rich", "pefile", "qemu", "pygit2", "http.client", "ssl", "asyncio",
    "xml", "sqlite3", "multiprocessing", "logging", "unittest",
}  # fmt: skip
# Allowed, but nothing at start needs them: they were at module level once.
NEEDLESS = {"shutil", "tempfile", "lzma", "bz2", "zipfile"}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Everything that a fresh interpreter has after it imported the bring-up."""
    package = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        "import sys; before = set(sys.modules); sys.modules['bcrypt'] = None; "
        "import machineos.boot.main, machineos.boot.sequence; "
        "print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    env = {"PYTHONPATH": ":".join([*(p for p in sys.path if p.endswith("src")), package])}
    # -S: without site, whose .pth files import things of their own.
    return set(run([sys.executable, "-S", "-c", code], timeout=60, env=env).text.splitlines())


def test_it_was_imported(imported: set[str]) -> None:
    assert {
        "machineos.boot.sequence",
        "machineos.trust.seal.unseal",
        "cryptography.x509",
    } <= imported


@pytest.mark.parametrize("name", sorted(FORBIDDEN | NEEDLESS))
def test_nothing_of_this(imported: set[str], name: str) -> None:
    assert not {module for module in imported if module == name or module.startswith(f"{name}.")}


def test_our_own_layers_stay_below(imported: set[str]) -> None:
    layers = {name.split(".")[1] for name in imported if name.startswith("machineos.")}
    assert layers == {"boot", "core", "document", "errors", "host", "oci", "state", "trust"}
