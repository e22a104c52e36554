from __future__ import annotations

import json
from typing import Any

import pytest

from machineos.build.recipe.config import parse_config
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
        ({"config": {"Labels": {"a": 1}}}, "config.Labels.a"),
        ({"rootfs": None}, "rootfs.diff_ids"),
        ({"rootfs": {"diff_ids": "x"}}, "rootfs.diff_ids"),
    ],
)
def test_refuses_what_is_not_a_configuration(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_config(body(**changes), name="c")
    assert [fault.path for fault in caught.value.faults] == [path]


EVERYTHING = ("Entrypoint", "Cmd", "Env", "Volumes", "ExposedPorts", "Labels", "User", "WorkingDir",
              "StopSignal", "Healthcheck", "OnBuild", "ArgsEscaped")  # fmt: skip


@pytest.mark.parametrize("key", EVERYTHING)
def test_what_is_null_is_absent(key: str) -> None:
    """Docker's classic builder writes it so, and whoever copied its configuration."""
    config, _ = parse_config(body(config={"Cmd": ["x"], key: None}), name="c")
    assert config.run == ({} if key == "Cmd" else {"Cmd": ["x"]})
    for whole in ({"config": None}, {"variant": None}, {"os": None}):
        parse_config(body(**whole), name="c")


@pytest.mark.parametrize("key", EVERYTHING[:9])
def test_a_wrong_type_is_a_fault_with_its_path(key: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_config(body(config={key: 7}), name="c")
    assert [fault.path for fault in caught.value.faults] == [f"config.{key}"]
