"""What an attacker with the disk does: reading and writing the parts of a machine that is off."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import msgspec

from machineos.build.os import appliance, bootimage, bootkit, uki, workshop
from machineos.core.run import run
from machineos.host.virt import tools
from machineos.trust.keys import efi
from machineos.trust.keys.enrolled import certs_of
from machineos.trust.measure import tpm_policy
from machineos.vm.model import Disk, Size
from vm.appliance import CLOCK
from vm.guest import BOOT
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.vm.model import Config
    from vm.appliance import Bench
    from vm.guest import Guest

# A LUKS header's JSON; what an attacker does to it does not fit one type.
Json = dict[str, Any]
# Boot the victim: what was tried, each with its end.
Tries = Callable[[], list[tuple[str, str]]]

# How a boot of the machine ends: its own words, or those of firmware and shim. A line whose words
# count is waited for to its end: what is on the console may be half of it.
VERDICT = (
    r"BOOT FAILED: [^\r\n]*(?=[\r\n])|handing over to systemd|Access Denied|Security Violation|"
    r"Kernel panic[^\r\n]*(?=[\r\n])|UEFI Interactive Shell|Start PXE|SBAT self-check failed"
)
RUNS = "handing over to systemd"
SLOTS = ("EFI/machineos-a/shimx64.efi", "EFI/BOOT/BOOTX64.EFI")
KERNELS = ("EFI/machineos-a/grubx64.efi", "EFI/BOOT/grubx64.efi")


# With several processors the emulation sometimes runs an int3 that belongs to a jump label.
EMULATION = "Oops: int3"


class Ends(Protocol):
    """Boot the victim and return the words of the verdict; ``text`` is all that boot has said."""

    text: str

    def __call__(self) -> str: ...


class Variable(TypedDict):
    """A variable of the firmware as virt-fw-vars shows it; ``data`` in hexadecimal."""

    name: str
    data: str


@dataclass(frozen=True)
class Partition:
    """A part of a raw disk, in bytes."""

    disk: Path
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        with self.disk.open("rb") as file:
            file.seek(self.start + offset)
            return file.read(size)

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= self.size - len(data)
        with self.disk.open("r+b") as file:
            file.seek(self.start + offset)
            file.write(data)

    def flip(self, offset: int, bit: int = 0) -> None:
        self.write(offset, bytes([self.read(offset, 1)[0] ^ (1 << bit)]))

    @property
    def fat(self) -> str:
        """The name of this partition for mtools."""
        return f"{self.disk}@@{self.start}"

    def get(self, name: str, folder: Path) -> Path:
        """Copy a file out of a FAT file system."""
        target = folder / name.replace("/", "-")
        run(["mcopy", "-n", "-i", self.fat, f"::/{name}", target], timeout=PATIENCE)
        return target

    def put(self, source: Path, name: str) -> None:
        """Replace a file of a FAT file system."""
        run(["mcopy", "-o", "-i", self.fat, source, f"::/{name}"], timeout=PATIENCE)

    @contextmanager
    def mounted(self, folder: Path) -> Iterator[Path]:
        """Mount it, on this host, for the length of a block."""
        folder.mkdir(exist_ok=True)
        options = f"loop,offset={self.start},sizelimit={self.size}"
        run(["mount", "-o", options, self.disk, folder], timeout=PATIENCE)
        try:
            yield folder
        finally:
            run(["umount", folder], timeout=PATIENCE)


@dataclass(frozen=True)
class Victim:
    """A copy of the installed machine with its disk as a raw file."""

    bench: Bench
    name: str

    @property
    def disk(self) -> Path:
        return self.bench.store.paths(self.name).state / f"{self.name}.raw"

    def partition(self, label: str) -> Partition:
        table = json.loads(run(["sfdisk", "-J", self.disk], timeout=PATIENCE).stdout)[
            "partitiontable"
        ]
        sector = table.get("sectorsize", 512)
        for entry in table["partitions"]:
            if entry["name"] == label:
                return Partition(self.disk, entry["start"] * sector, entry["size"] * sector)
        raise AssertionError(f"no partition {label}")

    def attach(self, name: str, area: bytes) -> Disk:
        """Make a small disk whose partition ``machine-config`` begins with ``area``."""
        path = self.disk.with_name(f"{name}.raw")
        with path.open("wb") as file:
            file.truncate(12 << 20)
        table = b'label: gpt\nstart=2048, name="machine-config"\n'
        run(["sfdisk", "-q", path], input=table, timeout=PATIENCE)
        with path.open("r+b") as file:
            file.seek(1 << 20)
            file.write(area)
        return Disk(file=path.name, format="raw", size=Size(12 << 20))

    def variables(self, *options: str | Path) -> dict[str, Variable]:
        """Change the firmware's variables with options of virt-fw-vars; return what they are."""
        nvram = self.bench.store.paths(self.name).uefi_nvram
        raw, out = nvram.with_suffix(".raw"), nvram.with_suffix(".json")
        tools.convert_image(nvram, "qcow2", raw, "raw")
        program = tools.find_vars_program()
        if options:
            run([program, "--input", raw, *options, "--output", raw], timeout=PATIENCE)
            nvram.unlink()
            tools.convert_image(raw, "raw", nvram, "qcow2")
        run([program, "--input", raw, "--output-json", out], timeout=PATIENCE)
        return {one["name"]: one for one in json.loads(out.read_text())["variables"]}

    def change(self, **changes: object) -> None:
        """Change the hardware: fields of its configuration."""
        machine = self.bench.store.load(self.name)
        config: Config = msgspec.structs.replace(machine.config, **changes)
        with self.bench.store.lock(self.name):
            self.bench.store.replace(msgspec.structs.replace(machine, config=config))


def make_victim(bench: Bench, name: str = "victim") -> Victim:
    """Copy the installed machine; its disk becomes raw, so that it can be edited here."""
    bench.clone(name)
    victim = Victim(bench, name)
    disk = bench.store.load(name).config.disks[0]
    source = victim.disk.with_suffix(".qcow2")
    tools.convert_image(source, "qcow2", victim.disk, "raw")
    source.unlink()
    victim.change(disks=(msgspec.structs.replace(disk, file=victim.disk.name, format="raw"),))
    return victim


def rewritten_luks(area: bytes, change: Callable[[Json], None]) -> bytes:
    """Change the JSON of both LUKS2 headers as an attacker would: with right checksums."""
    data = bytearray(area)
    for offset in (0, 16384):
        block = data[offset : offset + 16384]
        document = json.loads(bytes(block[4096:]).split(b"\0", 1)[0])
        change(document)
        block[4096:] = json.dumps(document).encode().ljust(12288, b"\0")
        block[448:512] = bytes(64)
        block[448:480] = hashlib.sha256(bytes(block)).digest()
        data[offset : offset + 16384] = block
    return bytes(data)


def authenticode(image: bytes) -> bytes:
    """Return the SHA-256 value under which a deny list names an EFI binary."""
    optional = struct.unpack_from("<I", image, 60)[0] + 24
    entry = optional + 112 + 4 * 8  # PE32+: the certificate table is entry 4
    start, _ = struct.unpack_from("<II", image, entry)
    hasher = hashlib.sha256(image[: optional + 64])
    hasher.update(image[optional + 68 : entry])
    hasher.update(image[entry + 8 : start or len(image)])
    return hasher.digest()


def rebuilt(
    bench: Bench,
    target: Path,
    *,
    sbat: Callable[[bytes], bytes] = bytes,
    dbx: bytes = b"",
    change: Callable[[dict[str, bytes]], None] = lambda _sections: None,
) -> None:
    """Sign the kernel image anew with the product's keys, as the next version would be.

    ``sbat`` changes its SBAT text, ``change`` its other sections. ``dbx`` is the deny list that its
    TPM policy expects.
    """
    anchored, options = bootkit.Anchored(bench.keyset), bootimage.Options()
    stub = (appliance.boot_root(bench.shop()) / bootimage.STUB_PATH).read_bytes()
    folder = workshop.bootkit_folder(bench.keyset.root, workshop.DEBUG)
    have = uki.read_sections((folder / "kernel.efi").read_bytes())
    names = (".osrel", ".cmdline", ".uname", ".pcrpkey", ".initrd", ".linux")
    sections = {name: have[name] for name in names}
    sections[".osrel"] += b"BUILD_ID=next\n"  # so that it is another file in any case
    change(sections)
    text = sbat(bootimage.sbat_text(stub))
    pcr11 = uki.measure({**sections, ".sbat": text})
    certs, certificate = certs_of(bench.keyset)
    signed = bootimage.boot_policies(
        pcr11,
        replace(certs, dbx=dbx) if dbx else certs,
        certificate,
        bootkit.policy_public_key(anchored),
        options,
        anchored.signer("tpmpol-luks").sign,
    )
    whole = {**sections, ".pcrsig": tpm_policy.render_policies(signed)}
    whole[".linux"] = whole.pop(".linux")
    unsigned = target.with_suffix(".unsigned")
    unsigned.write_bytes(uki.assemble(stub, whole, sbat=text))
    efi.sign_efi(unsigned, target, bench.keyset.key("uki-production"))


def verdict(guest: Guest, timeout: float = BOOT) -> str:
    """Wait until the boot is decided and return the words."""
    return str(guest.vm.wait_console(VERDICT, timeout)[0]).strip()


def firmware_tries(guest: Guest, timeout: float = BOOT) -> list[tuple[str, str]]:
    """Let somebody at the machine press Enter at every refusal, until the firmware knows nothing
    more to start; return what it started and how that ended."""
    deadline = CLOCK.monotonic() + timeout
    while True:
        text = re.sub(r"\x1b\[[0-9;=]*[A-Za-z]", "", guest.vm.console_text)
        if re.search(rf"No bootable option|BOOT FAILED.*[\r\n]|{RUNS}", text):
            break
        assert CLOCK.monotonic() < deadline, text[-3000:]
        guest.vm.send("\r")
        CLOCK.sleep(1)
    tries = []
    for part in text.partition("No bootable option")[0].split("BdsDxe: loading Boot")[1:]:
        title = re.match(r'[0-9A-F]+ "([^"]*)"', part)
        assert title is not None, part
        # shim says it twice; the first is in a box that Enter may close before it is drawn.
        words = re.search(VERDICT, part.replace("Security Policy Violation", "Security Violation"))
        tries.append((title[1], words[0] if words else ""))
    return tries


def reason(words: str) -> str:
    """Return the reason of a BOOT FAILED line."""
    match = re.fullmatch(r"BOOT FAILED: (.*)", words)
    assert match is not None, words
    return match[1]
