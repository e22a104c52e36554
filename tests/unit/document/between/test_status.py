from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from machineos.document.between.status import (
    MAX_SIZE,
    ServiceStatus,
    Status,
    encode,
    parse_status,
    summarise,
)
from machineos.errors import DocumentError

if TYPE_CHECKING:
    from machineos.document.between.status import State


def machine(*states: State, problems: tuple[str, ...] = ()) -> Status:
    services = tuple(
        ServiceStatus(name=f"s{number}", version="1", state=state)
        for number, state in enumerate(states)
    )
    return summarise(
        generation="g", product="p", updated="now", problems=problems, services=services
    )


@pytest.mark.parametrize(
    ("state", "settled", "good"),
    [
        ("running", True, True),
        ("mounted", True, True),
        ("starting", False, False),
        ("stopped", True, False),
        ("failed", True, False),
        ("refused", True, False),
    ],
)
def test_what_a_state_says_of_the_machine(state: State, settled: bool, good: bool) -> None:
    for found in (machine(state), machine("running", state, "mounted")):
        assert (found.settled, found.good) == (settled, good)


def test_a_problem_is_never_good() -> None:
    assert machine().good
    assert machine().settled
    found = machine("running", problems=("no table",))
    assert (found.settled, found.good) == (True, False)


def test_what_is_written_is_read() -> None:
    status = machine("running", "refused", problems=("x",))
    data = encode(status)
    assert parse_status(data) == status
    assert json.loads(data)["version"] == 1
    assert list(json.loads(data)) == [
        "version", "generation", "product", "updated", "settled", "good", "problems", "services",
    ]  # fmt: skip
    assert list(json.loads(data)["services"][0]) == [
        "name", "version", "state", "why", "unit", "pid", "restarts", "nsgroup", "hostid",
        "network", "addresses", "ports", "notes",
    ]  # fmt: skip


@pytest.mark.parametrize("service", [False, True])
def test_a_key_that_nobody_knows(service: bool) -> None:
    body = json.loads(encode(machine("running")))
    (body["services"][0] if service else body)["extra"] = 1
    with pytest.raises(DocumentError, match="extra"):
        parse_status(json.dumps(body).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b" " * (MAX_SIZE + 1)])
def test_another_shape(data: bytes) -> None:
    with pytest.raises(DocumentError, match=r"^here: "):
        parse_status(data, name="here")
    with pytest.raises(DocumentError, match=r"^status\.json: "):
        parse_status(data)
