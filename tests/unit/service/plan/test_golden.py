"""The files that services are confined by, whole: a changed line is seen before it is shipped.

``scripts/unit tests/unit/service/plan/test_golden.py --write-golden`` writes them anew; then look
at the difference, line by line. docs/trust.md says what each protects.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.service.plan import lxc, ruleset, unit
from unit.service.plan.cases import LXC, PORTS, SPECS, links

if TYPE_CHECKING:
    from machineos.service.plan.lxc import Container

GOLDEN = Path(__file__).with_name("golden")


def rendered(name: str) -> Container:
    return lxc.render(SPECS[name], folder=LXC)


def found(file: str) -> str:
    """Return what the code says now."""
    name, _, kind = file.partition(".")
    if kind == "lxc":
        return rendered(name).config
    if kind == "service":
        return unit.render(SPECS[name], rendered(name).argv)
    if kind == "nft":
        return ruleset.render(PORTS[name], links(PORTS[name]))
    return rendered("none").seccomp


FILES = (
    "seccomp",
    *(f"{name}.{kind}" for name in SPECS for kind in ("lxc", "service")),
    *(f"{name}.nft" for name in PORTS),
)


@pytest.mark.parametrize("name", sorted(FILES))
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    text, path = found(name), GOLDEN / name
    if request.config.getoption("--write-golden"):
        path.write_text(text)
    assert text == path.read_text()


def test_there_is_no_other_golden_file() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_container_has_the_same_filter(name: str) -> None:
    assert rendered(name).seccomp == (GOLDEN / "seccomp").read_text()
