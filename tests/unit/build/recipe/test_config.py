from __future__ import annotations

import json
from typing import Any

import pytest

from machineos.build.recipe.config import architecture, parse_config
from machineos.core.digest import Digest
from machineos.errors import DocumentError

LAYER = Digest.of(b"layer")


def body(**changes: object) -> bytes:
    value: dict[str, object] = {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "config": {"Cmd": ["x"], "Env": ["A=1", "B=c=d"], "Entrypoint": None},
        "rootfs": {"type": "layers", "diff_ids": [str(LAYER)]},
    }
    return json.dumps(value | changes).encode()


def test_reads_and_writes() -> None:
    config, ids = parse_config(body(), name="c")
    assert ids == (LAYER,)
    assert config.environment == {"A": "1", "B": "c=d"}
    written = config.to_bytes(LAYER, epoch=0, created_by="test")
    assert written == config.to_bytes(LAYER, epoch=0, created_by="test")
    again = json.loads(written)
    assert again["created"] == "1970-01-01T00:00:00Z"
    assert (again["architecture"], again["variant"], again["os"]) == ("arm64", "v8", "linux")
    assert again["config"] == {"Cmd": ["x"], "Env": ["A=1", "B=c=d"]}
    assert again["rootfs"]["diff_ids"] == [str(LAYER)]
    assert parse_config(written, name="c")[0] == config


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"os": 1}, "os"),
        ({"config": [1]}, "config"),
        ({"config": {"Cmd": "x"}}, "config.Cmd"),
        ({"config": {"Env": [1]}}, "config.Env"),
        ({"config": {"User": 5}}, "config.User"),
        ({"rootfs": None}, "rootfs.diff_ids"),
        ({"rootfs": {"diff_ids": "x"}}, "rootfs.diff_ids"),
    ],
)
def test_refuses_what_is_not_a_configuration(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_config(body(**changes), name="c")
    assert [fault.path for fault in caught.value.faults] == [path]


def test_names_of_architectures() -> None:
    assert [architecture(name) for name in ("x86_64", "aarch64", "riscv64")] == [
        "amd64",
        "arm64",
        "riscv64",
    ]
