"""The OCI image configuration of what we build and convert.

Owns how an image becomes bytes: compact JSON, keys in a fixed order, all times the epoch. Follows
the OCI image specification 1.1, "Image Configuration".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.document.model.limits import MAX_CONFIG
from machineos.errors import DocumentError, Fault


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a configuration that outlive a build: platform and how to run it.

    ``run`` is the object under the key ``config`` (Entrypoint, Cmd, Env, ...), as on the wire.
    """

    architecture: str
    os: str = "linux"
    variant: str = ""
    author: str = ""
    run: dict[str, Any] = {}

    @property
    def environment(self) -> dict[str, str]:
        """``Env`` as a mapping; the last of equal names counts, as in every runtime."""
        pairs = (item.partition("=") for item in self.run.get("Env", []))
        return {name: value for name, equals, value in pairs if equals}

    def to_bytes(self, *layers: Digest, epoch: int, created_by: str) -> bytes:
        """Return the configuration of an image with these layers."""
        created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body: dict[str, Any] = {"created": created}
        if self.author:
            body["author"] = self.author
        body["architecture"] = self.architecture
        if self.variant:
            body["variant"] = self.variant
        body["os"] = self.os
        body["config"] = {key: self.run[key] for key in sorted(self.run)}
        body["rootfs"] = {"type": "layers", "diff_ids": [str(layer) for layer in layers]}
        body["history"] = [{"created": created, "created_by": created_by} for _ in layers]
        return msgspec.json.encode(body)


def parse_config(
    data: bytes, *, name: str, ready: bool = False
) -> tuple[ImageConfig, tuple[Digest, ...]]:
    """Return the configuration in ``data`` and its ``diff_ids``: the digest of each layer unpacked.

    A ``ready`` image has a layer that its root hash says all of, and needs none. Raises:
    DocumentError.
    """
    body = parse_json(data, name=name, limit=MAX_CONFIG)
    if not isinstance(body, dict):
        raise DocumentError(name, [Fault("", 0, "is not a JSON object")])
    faults: list[Fault] = []

    def text(key: str) -> str:
        value = body.get(key) or ""
        if not isinstance(value, str):
            faults.append(Fault(key, 0, "is not a string"))
            return ""
        return value

    run = _read_run(body.get("config"), faults)
    rootfs = body.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if ids is None and ready:
        ids = []
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        faults.append(Fault("rootfs.diff_ids", 0, "is missing or not a list of digests"))
    config = ImageConfig(
        architecture=text("architecture"),
        os=text("os"),
        variant=text("variant"),
        author=text("author"),
        run=run,
    )
    if faults:
        raise DocumentError(name, faults)
    return config, tuple(Digest.parse(item) for item in ids or ())


def _read_run(said: object, faults: list[Fault]) -> dict[str, Any]:
    """Return how to run it; what is null is absent, as for Go, which writes it so."""
    if not isinstance(said, dict):
        if said is not None:
            faults.append(Fault("config", 0, "is not an object"))
        return {}
    run = {key: value for key, value in said.items() if value is not None}
    _check_run(run, faults)
    return run


def _check_run(run: dict[str, Any], faults: list[Fault]) -> None:
    kinds: tuple[tuple[type, str, tuple[str, ...]], ...] = (
        (list, "a list of strings", ("Entrypoint", "Cmd", "Env")),
        (dict, "an object", ("Volumes", "ExposedPorts", "Labels")),
        (str, "a string", ("User", "WorkingDir", "StopSignal")),
    )
    for kind, name, keys in kinds:
        for key in keys:
            value = run.get(key, kind())
            if not isinstance(value, kind) or (kind is list and not _are_texts(value)):
                faults.append(Fault(f"config.{key}", 0, f"is not {name}"))
    labels = run.get("Labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if not isinstance(value, str):
            faults.append(Fault(f"config.Labels.{key[:80]}", 0, "is not a string"))


def _are_texts(values: Any) -> bool:  # noqa: ANN401 (a list, of whatever)
    return all(isinstance(value, str) for value in values)
