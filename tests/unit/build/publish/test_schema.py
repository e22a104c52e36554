"""The schema for editors agrees with the reader: the same names, patterns and bounds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from machineos.build.publish.schema import schema, schema_bytes
from machineos.build.publish.source import parse_source
from machineos.document.model.names import GroupName, Label, ProductName, ServiceName, Version
from machineos.errors import DocumentError

DOCUMENTED = Path(__file__).parents[4] / "docs/schema/manifest.schema.json"


def properties(*path: str) -> dict[str, Any]:
    found: Any = schema()
    for key in path:
        found = found["properties"][key]
        found = found.get("items", found)
    properties: dict[str, Any] = found["properties"]
    return properties


def test_it_is_the_one_in_the_documentation() -> None:
    assert DOCUMENTED.read_bytes() == schema_bytes()
    assert json.loads(schema_bytes()) == schema()


def test_names_have_the_patterns_of_the_rules() -> None:
    target = properties("targets")
    assert properties()["product"]["pattern"] == f"^{ProductName.PATTERN}$"
    assert target["service_name"]["pattern"] == f"^{ServiceName.PATTERN}$"
    assert target["version"]["pattern"] == f"^{Version.PATTERN}$"
    assert target["nsgroup"]["pattern"] == f"^({GroupName.PATTERN})?$"
    assert properties("storage")["label"]["pattern"] == f"^{Label.PATTERN}$"
    assert properties("targets", "storage")["label"]["pattern"] == f"^{Label.PATTERN}$"


def test_bounds_are_those_of_the_rules() -> None:
    for port in ("host", "container"):
        assert properties("targets", "network", "ports")[port] == {
            "type": "integer", "minimum": 1, "maximum": 65535,
        }  # fmt: skip
    assert properties("targets")["size"] == {
        "type": "integer", "minimum": 1, "maximum": 4 << 20,
    }  # fmt: skip
    number, text = properties("storage")["size"]["anyOf"]
    assert number == {"type": "integer", "minimum": 1, "maximum": 1 << 34}
    for good in ("30G", "512MiB", "1T", "5B", "7"):
        assert re.fullmatch(text["pattern"], good)
    for bad in ("30X", "G", "-1", ""):
        assert not re.fullmatch(text["pattern"], bad)


@pytest.mark.parametrize("version", ["4", "6"])
def test_the_example_of_an_address_is_good(version: str) -> None:
    found = properties("targets", "network")[f"ipv{version}"]
    (example,) = re.findall(r"such as (\S+);", found["description"])
    assert re.fullmatch(found["pattern"], example)
    assert re.fullmatch(found["pattern"], "")
    assert not re.fullmatch(found["pattern"], example.replace("/", "/1"))
    text = (
        "{version: 1, product: p, update_type: partial, targets: [{service_name: a, version: 1, "
        f"source: 'oci:a:b', service_type: container, network: {{type: simple, ipv{version}: "
    )
    parse_source(f"{text}'{example}'}}}}]}}".encode())
    with pytest.raises(DocumentError, match="with prefix"):
        parse_source(f"{text}'{example.partition('/')[0]}'}}}}]}}".encode())


def test_what_has_to_be_there() -> None:
    assert schema()["required"] == ["version", "product", "targets"]
    assert schema()["additionalProperties"] is False
    target = schema()["properties"]["targets"]["items"]
    assert target["required"] == ["service_name", "source", "version", "service_type"]
    assert schema()["properties"]["targets"]["minItems"] == 1
    assert schema()["properties"]["targets"]["type"] == ["array", "null"]
    assert schema()["properties"]["update_type"] == {
        "enum": ["complete", "partial"],
        "default": "partial",
        "description": "complete replaces all that is installed, partial adds to it.",
    }
    assert schema()["properties"]["version"] == {"const": 1}
    assert properties("storage")["label"]["not"]["enum"] == [
        "esp", "machine-config", "machine-data", "machine-log", "machine-mirror",
        "machine-scratch", "machine-store", "pool",
    ]  # fmt: skip
    assert target["properties"]["service_type"]["enum"] == ["hostfs", "container", "fs-only"]
    network = properties("targets")["network"]
    assert network["required"] == []
    assert network["properties"]["type"] == {
        "enum": ["host", "none", "simple"], "default": "none",
    }  # fmt: skip
