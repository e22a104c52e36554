"""Attacks on what is on the disk of an installed machine: configuration volume and store.

Each works on its own copy.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.host.disk.integrity import SUPERBLOCK_SIZE, check_superblock
from machineos.host.disk.luks import HEADER_SIZE
from machineos.state.volumes.header import RECORD_OFFSET, RECORD_SIZE, header_record
from vm.appliance import KEYSET, NAME, Bench
from vm.attacks import RUNS, Ends, Json, Victim, reason, rewritten_luks
from vm.guest import Boot
from waiting import PATIENCE

pytestmark = [pytest.mark.tool("sfdisk"), pytest.mark.tool("cryptsetup")]
STRANGE = "its LUKS header was not written by this machine"
Edit = Callable[[BinaryIO], None]
ChangeBlob = Callable[[str, Edit], None]


# --- the configuration volume


def luks_of_an_attacker(folder: Path, *, reencrypting: bool = False) -> bytes:
    """Return the header of a volume made by somebody who knows no key of this machine."""
    path = folder / f"luks-{reencrypting}"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    run(["cryptsetup", "luksFormat", "-q", "--type=luks2", "--pbkdf=pbkdf2",
         "--pbkdf-force-iterations=1000", "--luks2-metadata-size=16k",
         "--luks2-keyslots-size=1048576", f"--offset={HEADER_SIZE // 512}", "--key-file=-", path],
        input=b"attacker", timeout=PATIENCE)  # fmt: skip
    if reencrypting:
        run(["cryptsetup", "reencrypt", "-q", "--init-only", "--pbkdf=pbkdf2",
             "--pbkdf-force-iterations=1000", "--key-file=-", path],
            input=b"attacker", timeout=PATIENCE)  # fmt: skip
        assert "online-reencrypt" in run(["cryptsetup", "luksDump", path], timeout=PATIENCE).text
    return path.read_bytes()[:HEADER_SIZE]


def null_cipher(document: Json) -> None:
    for segment in document["segments"].values():
        segment["encryption"] = "cipher_null-ecb"
        segment.pop("integrity", None)


def flipped(area: bytes, place: int) -> bytes:
    return area[:place] + bytes([area[place] ^ 1]) + area[place + 1 :]


@pytest.mark.attack(
    "disk",
    "another LUKS header: null cipher, re-encryption, another key's, flipped bits",
    "refused by its MAC before it is parsed",
)
def test_headers_that_this_machine_did_not_write(
    victim: Victim, ends: Ends, bench: Bench, tmp_path: Path
) -> None:
    """Each on a disk of its own, all before the machine's: it takes its own, and without that one
    it names every other with the reason: null ciphers, a re-encryption, strangers' and flipped."""
    own = victim.partition("machine-config")
    area = own.read(0, HEADER_SIZE)
    strange = luks_of_an_attacker(tmp_path)
    of_another = header_record(Secret(b"k" * 32), area[:RECORD_OFFSET])
    headers = {
        "json": flipped(area, 4096 + 20),
        "second": flipped(area, 16384 + 4096 + 20),
        "keyslot": flipped(area, 32768 + 20),
        "mac": flipped(area, RECORD_OFFSET + RECORD_SIZE - 1),
        "null": rewritten_luks(area, null_cipher),
        "null-of-stranger": rewritten_luks(strange, null_cipher),
        "stranger": strange,
        "reencrypting": luks_of_an_attacker(tmp_path, reencrypting=True),
        "other-key": area[:RECORD_OFFSET] + of_another + area[RECORD_OFFSET + RECORD_SIZE :],
    }
    disks = [victim.attach(name, header) for name, header in headers.items()]
    victim.change(disks=(*disks, *bench.store.load(victim.name).config.disks))
    assert ends() == RUNS
    own.flip(4096 + 20)
    text = reason(ends())
    assert text.startswith("no configuration volume of this machine: "), text
    named = set(re.findall(rf"(/dev/\w+): {STRANGE}", text))
    assert len(named) == len(headers) + 1, text


@pytest.mark.attack(
    "disk",
    "bits of the encrypted configuration are flipped",
    "boot ends: dm-integrity finds them",
)
def test_flipped_bits_in_the_encrypted_configuration(victim: Victim, ends: Ends) -> None:
    """One in each block: whichever is read first does not have the right MAC."""
    config = victim.partition("machine-config")
    data = bytearray(config.read(HEADER_SIZE, config.size - HEADER_SIZE))
    for place in range((1 << 20) + 16, len(data), 512):
        data[place] ^= 1
    config.write(HEADER_SIZE, bytes(data))
    assert "/config" in reason(ends())


# --- the volumes


@pytest.mark.attack(
    "disk",
    "sets the flags of dm-integrity's superblock that have the kernel make all tags anew",
    "the initrd reads it first: no volume is opened, and the machine boots without",
)
def test_a_superblock_that_has_all_tags_made_anew(victim: Victim, ends: Ends) -> None:
    """Nothing authenticates it; every block that was changed would be one of ours from then on."""
    data = victim.partition("machine-data")
    made = data.read(0, SUPERBLOCK_SIZE)
    check_superblock(made, what="as the installer made it")
    changed = bytearray(made)
    changed[24] |= 0x04  # a dirty bitmap, as it is left by another mode
    changed[29] ^= 0x01  # of another granularity
    data.write(0, bytes(changed))
    assert ends() == RUNS
    words = "its superblock of dm-integrity is none of ours"
    assert re.search(rf"storage: no volume can be opened: /dev/\w+: {words}", ends.text)
    assert data.read(0, SUPERBLOCK_SIZE) == bytes(changed)


# --- the store


@pytest.fixture(scope="module")
def images(bench: Bench) -> dict[str, str]:
    """The digest of each service's image manifest in the published manifest."""
    out = bench.command(
        "mosb", "manifest", "show", "--repo", f"oci:{bench.repo}", "--name", NAME,
        "--project", f"{KEYSET}:default", "--json",
    )  # fmt: skip
    targets = json.loads(out.stdout)["install"]["targets"]
    return {one["service_name"]: one["digest"].partition(":")[2] for one in targets}


@pytest.fixture(scope="module")
def layers(bench: Bench, images: dict[str, str]) -> dict[str, str]:
    """The digest of each service's layer."""
    found = {}
    for name, digest in images.items():
        manifest = json.loads((bench.repo / "mos/blobs/sha256" / digest).read_bytes())
        found[name] = manifest["layers"][0]["digest"].partition(":")[2]
    return found


@pytest.fixture
def blob(victim: Victim, tmp_path: Path) -> ChangeBlob:
    """Change blobs of the store: ``blob(digest, edit)`` opens one and hands it to ``edit``."""

    def change(digest: str, edit: Edit) -> None:
        with victim.partition("machine-store").mounted(tmp_path / "store") as folder:
            with (folder / "mos/blobs/sha256" / digest).open("r+b") as file:
                edit(file)

    return change


def flip_at(*places: int) -> Edit:
    def edit(file: BinaryIO) -> None:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))

    return edit


def end_of_squashfs(file: BinaryIO) -> int:
    """Return where the hash tree begins: the superblock says how long the file system is."""
    file.seek(40)
    size = int(struct.unpack("<Q", file.read(8))[0])
    return -(-size // 4096) * 4096


def flip_tree(file: BinaryIO) -> None:
    start = end_of_squashfs(file)
    flip_at(*range(start + 4096 + 16, file.seek(0, 2), 4096))(file)


def flip_files(file: BinaryIO) -> None:
    """Flip a bit of every block but the first, which has the superblock."""
    flip_at(*range(4096 + 16, end_of_squashfs(file), 4096))(file)


@pytest.mark.attack(
    "disk",
    "an image manifest in the store is changed",
    "boot ends: not what was signed",
)
def test_a_flipped_bit_in_an_image_manifest(
    victim: Victim, ends: Ends, images: dict[str, str], blob: ChangeBlob
) -> None:
    blob(images["hostfs"], flip_at(50))
    assert images["hostfs"][:12] in reason(ends())


@pytest.mark.attack(
    "disk",
    "an image is taken out of the store",
    "boot ends, naming it",
)
def test_a_missing_image(
    victim: Victim, ends: Ends, images: dict[str, str], tmp_path: Path
) -> None:
    with victim.partition("machine-store").mounted(tmp_path / "store") as folder:
        (folder / "mos/blobs/sha256" / images["registry"]).unlink()
    assert images["registry"][:12] in reason(ends())


@pytest.mark.attack(
    "disk",
    "the hash tree of the root is changed",
    "boot ends: it does not match its root hash",
)
def test_a_flipped_bit_in_the_verity_tree(
    victim: Victim, ends: Ends, layers: dict[str, str], blob: ChangeBlob
) -> None:
    blob(layers["hostfs"], flip_tree)
    assert layers["hostfs"][:12] in reason(ends())


@pytest.mark.attack(
    "disk",
    "the root file system is changed",
    "no changed block is ever read",
)
def test_flipped_bits_in_the_root_file_system(
    victim: Victim, ends: Ends, layers: dict[str, str], blob: ChangeBlob
) -> None:
    blob(layers["hostfs"], flip_files)
    assert layers["hostfs"][:12] in reason(ends())


@pytest.mark.attack(
    "disk",
    "the image of a service is changed",
    "that service does not start, the others do",
)
def test_a_flipped_bit_in_a_service_stops_only_that(
    victim: Victim, boot: Boot, layers: dict[str, str], blob: ChangeBlob
) -> None:
    blob(layers["registry"], flip_tree)
    with boot(victim.name) as guest:
        guest.wake()
        settled = "mosctl status --json | grep -q '\"settled\": true'"
        text = guest.wait_until(f"{settled} && mosctl status --json")
        status = json.loads(text)
        states = {one["name"]: one for one in status["services"]}
        assert not status["good"]
        assert states["registry"]["state"] in {"refused", "failed"}, text
        assert states["registry"]["why"]
        assert states["alone"]["state"] == "running"
        assert guest.answer() == 0
