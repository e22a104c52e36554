"""What the new root finds that is not of its volume: empty overlays, its id, public certificates.

Nothing that was on a disk before this boot can get into /etc and /var: the upper folders are made
new in memory each time (ostree#3187 is what happens otherwise), and one that is there is refused.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    CERTIFICATE,
    FRESH,
    IDENTITY,
    ROOT,
    RUN,
    SCRATCH,
    SYSROOT,
    Facts,
    Phase,
)
from machineos.boot.steps import MakeFolder, MountOverlay, WriteFile
from machineos.core.steps import Talk, ask
from machineos.host.kernel.flags import Flag

if TYPE_CHECKING:
    from machineos.trust.verify.chain import DeviceIdentity

UPPERS = RUN / "fresh"
PUBLIC = RUN / "trust"


def machine_id(identity: DeviceIdentity) -> str:
    """Return the machine's own id (machine-id(5)): the same at every boot, and of no other machine,
    without being stored anywhere."""
    text = f"machineos machine-id {identity.product} {identity.serial}"
    digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(MakeFolder(UPPERS))
        for name in ("etc", "var"):
            upper, work = UPPERS / name / "upper", UPPERS / name / "work"
            yield from ask(MakeFolder(UPPERS / name))
            yield from ask(MakeFolder(upper))
            yield from ask(MakeFolder(work, mode=0o700))
            flags = Flag.NOSUID | Flag.NODEV
            yield from ask(MountOverlay(SYSROOT / name, upper, work, flags))
        identity = f"{machine_id(facts[IDENTITY])}\n"
        yield from ask(WriteFile(SYSROOT / "etc/machine-id", identity.encode()))
        yield from ask(MakeFolder(PUBLIC))
        for name, data in (
            ("manifest-ca.pem", facts[ANCHORS].manifest_ca),
            ("sudi-ca.pem", facts[ANCHORS].sudi_ca),
            ("device.pem", facts[CERTIFICATE]),
        ):
            yield from ask(WriteFile(PUBLIC / name, data))
        return Facts()


PHASE = _Phase(
    "fresh",
    modes=BOOTS,
    needs=frozenset({SCRATCH, ANCHORS, CERTIFICATE, IDENTITY, ROOT}),
    gives=frozenset({FRESH}),
)
