"""The JSON Schema of ``manifest.yaml``, for editors.

Made from the same patterns and limits as ``document.rules``; rules that look at several values at
once (ports or addresses taken twice) are not in it, so ``mosb`` stays the judge.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from machineos.document.model.hardware import Kernel, Microcode, PackageName
from machineos.document.model.install import NetworkType, Protocol, ServiceType, UpdateType
from machineos.document.model.limits import MAX_IMAGE_MANIFEST, MAX_PORT, MAX_VOLUME
from machineos.document.model.names import GroupName, Label, ProductName, ServiceName, Version
from machineos.document.rules.network import EXAMPLES, gateway
from machineos.document.rules.storage import RESERVED_LABELS
from machineos.oci.model.reference import PREFIXES, SOURCES

IDENTIFIER = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema."""
    return {
        "$schema": IDENTIFIER,
        "title": "machineOS manifest.yaml",
        **_object(
            {
                "version": {"const": 1},
                "product": _text(ProductName.PATTERN, "Name or UUID of the product."),
                "update_type": {
                    "enum": list(get_args(UpdateType)),
                    "default": "partial",
                    "description": "complete replaces all that is installed, partial adds to it.",
                },
                "storage": _list(_storage(), "Volumes that targets can mount."),
                "hardware": _hardware(),
                "targets": {**_list(_target(), "What the machine runs."), "minItems": 1},
            },
            ("version", "product", "targets"),
        ),
    }


def schema_bytes() -> bytes:
    """Return the schema as it lies in ``docs/schema/manifest.schema.json``."""
    return json.dumps(schema(), indent=2).encode() + b"\n"


def _hardware() -> dict[str, Any]:
    packages = {"type": "string", "pattern": f"^{PackageName.PATTERN}$"}
    body = _object(
        {
            "kernel": {"enum": list(get_args(Kernel)), "default": "generic"},
            "firmware": _list(
                packages,
                "Debian packages, or common, all, none; files that a module names go in. Common "
                "with the generic kernel when left out.",
            ),
            "microcode": {
                "enum": list(get_args(Microcode)),
                "description": "Of processors; intel is both. AMD's with the generic kernel when "
                "left out.",
            },
        },
        (),
    )
    return {**body, "description": "What `mosb bootkit build --manifest` builds for."}


def _target() -> dict[str, Any]:
    return _object(
        {
            "service_name": _text(ServiceName.PATTERN, "Also the name of its unit and files."),
            "source": _text(f"({'|'.join(PREFIXES)}).+", f"One of {', '.join(SOURCES)}."),
            "version": _text(Version.PATTERN, "Version of the service."),
            "service_type": {"enum": list(get_args(ServiceType))},
            "network": _network(),
            "nsgroup": _text(
                f"({GroupName.PATTERN})?",
                "User namespace; equal names share ids, none is the host's. Its own when left out.",
            ),
            "storage": _list(
                _object(
                    {
                        "dest": _text("/.+", "Folder in the target."),
                        "label": _text(Label.PATTERN, "Label of a volume."),
                    },
                    ("dest", "label"),
                ),
                "Volumes that the target sees.",
            ),
            "digest": _text("sha256:[a-f0-9]{64}", "Digest of the image manifest at the source."),
            "size": {"type": "integer", "minimum": 1, "maximum": MAX_IMAGE_MANIFEST},
            "signed-by": _signed_by(),
        },
        ("service_name", "source", "version", "service_type"),
    )


def _signed_by() -> dict[str, Any]:
    key = _text(".+", "PEM file of a public key, as seen from here.")
    bundle = _text(".+", "File of a sigstore bundle, where the signature is not with the image.")
    return {
        "description": "Whose signature the image at the source must have, as cosign makes it.",
        "anyOf": [key, _object({"key": key, "bundle": bundle}, ("key",))],
    }


def _network() -> dict[str, Any]:
    port = {"type": "integer", "minimum": 1, "maximum": MAX_PORT}
    return _object(
        {
            "type": {"enum": list(get_args(NetworkType)), "default": "none"},
            "ipv4": _address("[0-9.]+", 4),
            "ipv6": _address("[0-9a-fA-F:]+", 6),
            "ports": _list(
                _object(
                    {
                        "host": port,
                        "container": port,
                        "protocol": {"enum": list(get_args(Protocol)), "default": "tcp"},
                    },
                    ("host", "container"),
                ),
                "Ports of the host that lead into the target.",
            ),
        },
        (),
    )


def _address(digits: str, version: int) -> dict[str, Any]:
    """Return the schema of an address: its prefix is that of the one network there is."""
    network = gateway(version).network
    return _text(
        f"({digits}/{network.prefixlen})?",
        f"An address in {network} with prefix, such as {EXAMPLES[version]}; chosen when empty.",
    )


def _storage() -> dict[str, Any]:
    return _object(
        {
            "label": {
                **_text(Label.PATTERN, "Name of the volume."),
                "not": {"enum": list(RESERVED_LABELS)},
            },
            "persistent": {"type": "boolean", "default": False},
            "nsgroup": _text(f"({GroupName.PATTERN})?", "Group that owns the files."),
            "size": {
                "description": "MiB, or a size with a unit such as 30G.",
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": MAX_VOLUME},
                    {"type": "string", "pattern": "^[0-9]+([KMGTP](iB|B|i)?|B)?$"},
                ],
            },
        },
        ("label", "size"),
    )


def _object(properties: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": ["array", "null"], "items": items, "description": description}


def _text(pattern: str, description: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$", "description": description}
