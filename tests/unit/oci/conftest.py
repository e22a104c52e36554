"""Registries: a fake one, a real one, a folder."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from fakes.habits import habits
from fakes.registry import FakeRegistry, fake_registry
from fakes.repository import MemoryRegistry
from machineos.core import run
from machineos.core.digest import Digest
from machineos.oci.layout.folder import LayoutRegistry
from machineos.oci.registry.client import HttpRegistry, Limits
from unit.oci.samples import DATA, NoWaiting
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machineos.oci.model.repository import Registry

# Few attempts and small pieces; times as in real life, so that a busy machine fails no test.
FAST = Limits(attempts=2, piece=64 << 10)
# For what must run into a time limit.
HASTY = Limits(
    connect_seconds=2,
    read_seconds=1,
    answer_seconds=0.4,
    document_seconds=2,
    window_seconds=0.3,
    window_bytes=1000,
    attempts=2,
)
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


@pytest.fixture
def stored(fake: FakeRegistry) -> FakeRegistry:
    """The same, with the blob ``DATA``."""
    fake.blobs[("a/b", str(Digest.of(DATA)))] = DATA
    return fake


@pytest.fixture
def clock() -> NoWaiting:
    return NoWaiting()


@pytest.fixture
def client(fake: FakeRegistry, clock: NoWaiting) -> Iterator[HttpRegistry]:
    with HttpRegistry(fake.host, limits=FAST, clock=clock, seed=1) as registry:
        yield registry


@pytest.fixture
def hasty(fake: FakeRegistry, clock: NoWaiting) -> Iterator[HttpRegistry]:
    with HttpRegistry(fake.host, limits=HASTY, clock=clock, seed=1) as registry:
        yield registry


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


@pytest.fixture(
    params=[
        "memory",
        "layout",
        "fake",
        *habits(),
        pytest.param("docker-registry", marks=pytest.mark.tool("docker-registry")),
    ]
)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Each kind of registry that there is, empty."""
    if request.param == "memory":
        yield MemoryRegistry()
    elif request.param == "layout":
        yield LayoutRegistry(tmp_path / "registry", writable=True)
    elif request.param == "docker-registry":
        with HttpRegistry(request.getfixturevalue("docker_registry")) as client:
            yield client
    else:
        fake = request.getfixturevalue("fake")
        if request.param != "fake":
            habits()[request.param].keep(fake)
        with HttpRegistry(fake.host, limits=FAST) as client:
            yield client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository name of this test's own: the docker-registry is shared."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:80]
    return f"test/{slug}"
