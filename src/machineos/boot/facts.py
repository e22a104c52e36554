"""What a boot knows and what holds, by name; and what a phase of it is. Pure.

A *fact* has a name, and most have a value. A phase sees the facts that it needs and no others, and
adds those that it gives and no others; so ``needs`` and ``gives``, from which the order follows,
cannot be untrue. The security of the boot is this order: who adds a phase says in ``needs`` what
has to hold before it (docs/adr/0018).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.core.facts import Fact as Fact  # phases find them here too
from machineos.core.facts import Facts as Facts
from machineos.core.facts import held_to
from machineos.host.kernel.flags import Flag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from machineos.core.digest import Digest
    from machineos.core.secret import Secret
    from machineos.core.steps import Talk
    from machineos.document.between.bootsettings import Anchors, Mode, Settings
    from machineos.document.between.medium import MediumIndex
    from machineos.document.product.install import Target
    from machineos.document.state.system import System
    from machineos.oci.model.atomfs import Layer
    from machineos.trust.verify.chain import DeviceIdentity, Publisher

SYSROOT = Path("/sysroot")
RUN = Path("/run/machineos")
STORE_FOLDER = Path("/atomfs-store")
CONFIG_FOLDER = Path("/config")
DATA_FOLDER = Path("/var/lib/machineos/data")
MEDIUM_FOLDER = RUN / "medium"
DISK_SECONDS = 20.0
# No file of a disk may run, be a device, or change who runs it; and nothing is written to one.
DISK_FLAGS = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC

BOOTS: frozenset[Mode] = frozenset({"run", "install"})
RUNS: frozenset[Mode] = frozenset({"run"})
INSTALLS: frozenset[Mode] = frozenset({"install"})
PROVISIONS: frozenset[Mode] = frozenset({"provision"})
ALWAYS: frozenset[Mode] = frozenset({"run", "install", "provision"})


class Generation(msgspec.Struct, frozen=True):
    """What is going to run: the merged system, and the first id of each group's range."""

    system: System
    idmaps: Mapping[str, int]


class Source(msgspec.Struct, frozen=True):
    """A target of a verified manifest, and who signed that manifest and so its root hashes."""

    target: Target
    publisher: Publisher


class Image(msgspec.Struct, frozen=True):
    """The verified image of one target: the layer of it that is mounted, the digest of its
    configuration, and the signature of the layer's root hash; of a bootkit also the layer with the
    boot files and the signature of its root hash."""

    target: Target
    layer: Layer
    config: Digest
    signature: bytes
    boot_files: tuple[Layer, bytes] | None = None


class Medium(msgspec.Struct, frozen=True):
    """A mounted install medium."""

    device: Path
    index: MediumIndex


class NewIdentity(msgspec.Struct, frozen=True):
    """The files of a device identity that a machine is to be given; nothing is checked yet."""

    certificate: bytes
    private_key: Secret


class HostCa(msgspec.Struct, frozen=True):
    """The CA of a machine that is being installed: private key and certificate (PEM), and the
    device identity's signature of the certificate (PKCS#7)."""

    private_key: Secret
    certificate: bytes
    signature: bytes


class Departure(msgspec.Struct, frozen=True):
    """How the initrd is left: the mounts that come along, the last line, systemd's arguments."""

    mounts: tuple[Path, ...]
    text: str
    arguments: tuple[str, ...] = ()


# Given before the first phase.
SETTINGS: Fact[Settings] = Fact("settings")
COMMAND_LINE = "command line checked"
LOADING = "drivers loading"
GIVEN = frozenset({SETTINGS, COMMAND_LINE, LOADING})

# Learnt, or brought about.
SCRATCH = "scratch folder"
ANCHORS: Fact[Anchors] = Fact("anchors")
CLOCK = "clock"
DRIVERS = "drivers"
WATCHDOG = "watchdog chosen"
FIRMWARE_KEYS = "no stranger's key"
SEALED = "sealed session"
KEY: Fact[Secret] = Fact("configuration key")
STORAGE_KEY: Fact[Secret] = Fact("storage volume key")
# From here on the TPM gives out neither key. Nothing that an attacker may have written is parsed
# before it.
FIRST_DOOR = "first door closed"
CERTIFICATE: Fact[bytes] = Fact("device certificate")
IDENTITY: Fact[DeviceIdentity] = Fact("identity")
UNSEALED = "unsealed"
HOST_CA: Fact[HostCa] = Fact("host CA")
# Whoever takes the keys over has them: who opens another volume with one gives a fact of their own,
# which ``forget`` has to need.
KEYS_USED = "keys handed over"
FORGOTTEN = "keys overwritten"
# Those of the disk that the configuration is on, by label; no other disk counts from then on.
PARTITIONS: Fact[Mapping[str, Path]] = Fact("partitions")
# The devices of all volumes are on their way; what opens each of them.
VOLUMES_BEGUN = "volumes begun"
MACHINE_KEY: Fact[Secret] = Fact("private key of the machine")
# Who needs the storage volume key has made of it what it needs.
VOLUME_KEYS = "volume keys derived"
VOLUMES: Fact[bytes] = Fact("volumes open, public key of the machine")
OPENED = "configuration open"
GENERATION: Fact[Generation] = Fact("generation")
MEDIUM: Fact[Medium] = Fact("medium")
SOURCES: Fact[tuple[Source, ...]] = Fact("sources")
PUBLISHERS: Fact[tuple[bytes, ...]] = Fact("publishers")
STORE: Fact[Path] = Fact("store")
IMAGES: Fact[tuple[Image, ...]] = Fact("images")
ENFORCING = "enforcing"
TRUSTED = "certificates trusted"
ROOT = "root"
FRESH = "fresh root"
REQUESTS = "requests carried out"
DEPARTURE: Fact[Departure] = Fact("departure")
LOCKED = "first root untrusted"
UNPRIVILEGED = "mac-admin dropped"
DOOR_CLOSED = "door closed"
NEW_IDENTITY: Fact[NewIdentity] = Fact("new identity")
CARRIER: Fact[Path] = Fact("disk with the new identity")
TPM_KIND = "kind of TPM accepted"
PROVISIONED = "provisioned"


class Phase(msgspec.Struct, frozen=True):
    """One part of the boot; a file in ``phases`` holds one, as ``PHASE``.

    ``modes`` are the modes in which it takes part. What it does is in ``talk`` of its class.
    """

    name: str
    modes: frozenset[Mode]
    needs: frozenset[str]
    gives: frozenset[str]

    def act(self, facts: Facts) -> Talk[Facts]:
        """Run the phase; it is held to what it says. Raises: OrderError, MachineOSError."""
        return held_to(self, self.talk, facts)

    def talk(self, facts: Facts) -> Talk[Facts]:
        """Yield the steps of this phase and return what was learnt."""
        raise NotImplementedError
