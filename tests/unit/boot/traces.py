"""What a boot asks of its host, line by line, in words that are the same in every run.

``python -m unit.boot.traces`` (with src and tests on the path) writes the golden files anew.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path, PurePath
from typing import get_args

import msgspec

from fakes.boot import FakeMachine
from machineos.boot.plan import found
from machineos.core.digest import Digest
from machineos.core.secret import Secret
from machineos.document.between.bootsettings import Anchors, Mode
from machineos.document.product.install import Target
from machineos.oci.model.atomfs import Layer
from machineos.trust.measure.tpm_policy import SignedPolicy
from machineos.trust.verify.chain import DeviceIdentity, Publisher
from unit.boot.worlds import (
    Content,
    anchors,
    content,
    device_pem,
    machine,
)

GOLDEN = Path(__file__).parent / "golden"
MODES: tuple[Mode, ...] = get_args(Mode)
_HEX = re.compile(r"[0-9a-f]{64}")


def trace(made: FakeMachine) -> str:
    """Boot and return the calls, one a line; known bytes and digests go by their names."""
    names = known(content())
    calls = made.boot().host.calls
    return "".join(_line(name, arguments, names) for name, arguments in calls)


def _line(name: str, arguments: tuple[object, ...], names: dict[object, str]) -> str:
    text = shown(arguments, names)
    if name in {"write_file", "make_folder"}:
        text = re.sub(r"\d+$", lambda at: f"{int(at[0]):o}", text)
    return f"{name} {text}".rstrip() + "\n"


def known(what: Content) -> dict[object, str]:
    """Return names for what differs from run to run."""
    verified = what.fetched.verified
    names: dict[object, str] = {
        device_pem(): "device certificate",
        verified.publisher.certificate_der: "publisher",
        verified.sha256: "document",
    }
    names |= {getattr(anchors(), one): f"anchor {one}" for one in Anchors.__struct_fields__}
    for target in verified.install.targets:
        names[target.image.hex] = f"image-of-{target.service_name}"
        for digest, data in what.repositories["mos"]._blobs.items():
            if data.startswith(b"hsqs") and _layer_of(what, target, digest):
                names[digest.hex] = f"layer-of-{target.service_name}"
    return names


def _layer_of(what: Content, target: Target, digest: Digest) -> bool:
    return digest.hex.encode() in what.repositories["mos"]._blobs[target.image]


def shown(value: object, names: dict[object, str]) -> str:
    """Return a value in words."""
    match value:
        case tuple():
            return " ".join(shown(item, names) for item in value)
        case bytes():
            return f"<{names.get(value, 'bytes')}>"
        case Secret():
            return "<secret>"
        case Layer(digest=digest):
            return f"<{names.get(digest.hex, 'blob')}>"
        case Target():
            return f"<target {value.service_name}>"
        case DeviceIdentity():
            return "<identity>"
        case Publisher():
            return f"<{names.get(value.certificate_der, 'publisher')}>"
        case SignedPolicy():
            return "<policy>"
        case msgspec.Struct():
            fields = [(one, getattr(value, one)) for one in value.__struct_fields__]
            return " ".join(f"{name}={shown(item, names)}" for name, item in fields)
        case str() | PurePath():
            text = _HEX.sub(lambda at: names.get(at[0], "<digest>"), str(value))
            return re.sub("generation [0-9a-f]{12}", "generation <document>", text)
        case Enum():
            return str(value.name)
        case _:
            return repr(value)


def traces() -> dict[str, str]:
    """Return every golden trace by the name of its file."""
    return {f"{mode}.txt": trace(machine(mode)) for mode in MODES} | {"phases.txt": phases()}


def phases() -> str:
    """Return what each phase says of itself."""
    lines = []
    for phase in sorted(found(), key=lambda one: (one.name, sorted(one.modes))):
        lines += [
            phase.name,
            f"    modes: {', '.join(sorted(phase.modes))}",
            f"    needs: {', '.join(sorted(phase.needs))}",
            f"    gives: {', '.join(sorted(phase.gives))}".rstrip(),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, text in traces().items():
        (GOLDEN / name).write_text(text)
