"""Registries as fixtures: kept in memory, in folders, played with their habits, and a real one."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from fakes.archive import ArchivedRegistry
from fakes.habits import REAL, habits, keep_all, products
from fakes.registry import PASSWORD, USER, FakeRegistry, fake_registry
from fakes.repository import MemoryRegistry
from machineos.core import run
from machineos.oci.layout.folder import LayoutRegistry
from machineos.oci.registry.auth import Credentials
from machineos.oci.registry.client import HttpRegistry, Limits
from unit.oci.samples import auth_file
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machineos.oci.model.repository import Registry

# Few attempts and small pieces; times as in real life, so that a busy machine fails no test.
FAST = Limits(attempts=2, piece=64 << 10)
PLAYED = [pytest.param(name, id=f"as {name}") for name in products()]
REAL_ONE = pytest.param(REAL, marks=pytest.mark.tool(REAL))
_CONFIG = """\
version: 0.1
log: {{level: info}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0"}}
"""


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as server:
        yield server


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on a port that the kernel chose."""
    folder = tmp_path_factory.mktemp("docker-registry")
    (folder / "config.yml").write_text(_CONFIG.format(root=folder / "data"))
    log = folder / "log"
    with log.open("wb") as output:
        process = run.spawn(
            ["docker-registry", "serve", folder / "config.yml"],
            log=output,
            env={"OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        wait_for(lambda: _port(log) is not None, during=process, what=f"it listens; see {log}")
        port = _port(log)
        assert port is not None, log.read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def _port(log: Path) -> int | None:
    match = re.search(r"listening on 127\.0\.0\.1:([0-9]+)", log.read_text())
    return int(match[1]) if match else None


def served(request: pytest.FixtureRequest, kind: str) -> str:
    """Return the host of a registry that speaks HTTP: the real one, a habit, or a product."""
    if kind == REAL:
        return str(request.getfixturevalue("docker_registry"))
    fake: FakeRegistry = request.getfixturevalue("fake")
    if kind != "fake":
        keep_all(fake, products().get(kind, (kind,)))
    return fake.host


def opened(host: str, folder: Path) -> HttpRegistry:
    """Return a client that knows the password of every registry here."""
    credentials = Credentials([auth_file(folder / "auth.json", host, USER, PASSWORD)])
    return HttpRegistry(host, limits=FAST, credentials=credentials)


@pytest.fixture(params=["memory", "layout", "archive", "fake", *habits(), *PLAYED, REAL_ONE])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Each kind of registry that there is, empty."""
    if request.param == "memory":
        yield MemoryRegistry()
    elif request.param == "layout":
        yield LayoutRegistry(tmp_path / "registry", writable=True)
    elif request.param == "archive":
        yield ArchivedRegistry(tmp_path / "registry")
    else:
        with opened(served(request, request.param), tmp_path) as client:
            yield client


@pytest.fixture(params=[*PLAYED, REAL_ONE])
def product(request: pytest.FixtureRequest) -> str:
    """The host of each product, with all that it was reported to do, and of a real registry."""
    return served(request, request.param)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository name of this test's own: the docker-registry is shared."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:80]
    return f"test/{slug}"
