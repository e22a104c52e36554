"""Every name that a service has on the machine follows from its id, here and nowhere else."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.serviceid import UNIT_PREFIX, ServiceId, ServiceName
from machineos.errors import DocumentError

IDS = st.from_regex(ServiceName.PATTERN, fullmatch=True).map(ServiceId)
SOURCE = Path(__file__).resolve().parents[3] / "src/machineos"


def test_the_names_are_those_of_what_is_shipped() -> None:
    web = ServiceId("my_web.1")
    assert str(web) == "my_web.1"
    assert web.unit == "machineos-my_web.1.service"
    assert web.folder == "my_web.1"
    assert web.container == "my_web.1"
    assert web.host_name == "my-web-1"
    assert web.log == "my_web.1"
    assert web.link(IPv4Address("10.0.3.99")) == "mv0a000363"


@pytest.mark.parametrize(
    ("text", "name"), [("a", "a"), ("a--_.", "a"), ("0._-z", "0---z"), ("a" * 63, "a" * 63)]
)
def test_host_names(text: str, name: str) -> None:
    assert ServiceId(text).host_name == name


@given(IDS)
def test_names_lead_back_and_fit(service: ServiceId) -> None:
    assert ServiceId.of_unit(service.unit) == service
    assert ServiceId.of_folder(service.folder) == service
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", service.host_name)
    assert len(service.link(IPv4Address("255.255.255.255"))) <= 15
    assert len(service.unit) < 256


@pytest.mark.parametrize(
    "text", ["", "Web", "-web", ".web", "_web", "a/b", "a b", "a\n", "ä", "a" * 64, "a\0"]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        ServiceId(text)
    wrong = f"{text[:80]!r} is not a service name ([a-z0-9][a-z0-9._-]{{0,62}})"
    assert str(caught.value) == f"service: {wrong if text else 'is missing or empty'}"
    assert ServiceId.of_folder(text) is None
    assert ServiceId.of_unit(f"machineos-{text}.service") is None


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(DocumentError, match=re.escape(repr("x" * 80))):
        ServiceId("x" * 100)


@pytest.mark.parametrize("name", ["web.service", "machineos-web", "machineos-web.socket", "x"])
def test_units_of_others(name: str) -> None:
    assert ServiceId.of_unit(name) is None


def test_ids_have_an_order_and_are_equal_by_text() -> None:
    assert sorted([ServiceId("b"), ServiceId("a")]) == [ServiceId("a"), ServiceId("b")]
    assert ServiceId("a") == ServiceId("a")
    assert ServiceId("a") != ServiceId("b")


def test_no_other_module_knows_the_prefix_of_units() -> None:
    rooms = ("core", "document", "host/unit", "service", "daemon", "cli/operator")
    users = {
        path.relative_to(SOURCE).as_posix()
        for room in rooms
        for path in (SOURCE / room).rglob("*.py")
        if f'"{UNIT_PREFIX}' in path.read_text()
    }
    assert users == {"core/serviceid.py"}
