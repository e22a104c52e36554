"""NOT COLLECTED BY DEFAULT: written and never run to the end; name this file to run it.

Attacks on an installed machine: refused with one line that says why, or without any effect.

Issue 2, "What bad input gets"; peers section 5, rows 14, 16, 19, 20. Each works on its own copy.
"""

from __future__ import annotations

import json
import struct

import pytest
from appliance import make_keyset
from attacks import KERNELS, RUNS, SLOTS, reason

from machineos.core.run import run
from machineos.host import qemuimg
from machineos.vm.model import Disk

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.tool("qemu-system-x86_64"),
    pytest.mark.tool("swtpm"),
    pytest.mark.tool("mcopy"),
    pytest.mark.tool("sfdisk"),
]


# --- the configuration volume


def test_a_flipped_bit_in_the_luks_header(victim, ends):
    config = victim.partition("machine-config")
    config.flip(4096 + 20)  # in the JSON area
    assert "its LUKS header was not written by this machine" in reason(ends())


def test_the_second_header_copy_counts_too(victim, ends):
    victim.partition("machine-config").flip(16384 + 4096 + 20)
    assert "its LUKS header was not written by this machine" in reason(ends())


@pytest.mark.tool("cryptsetup")
def test_a_null_cipher_of_an_attacker(victim, ends, tmp_path):
    """Row 14: a header that decrypts nothing, made by somebody who knows no key."""
    config = victim.partition("machine-config")
    head = tmp_path / "head"
    with head.open("wb") as file:
        file.truncate(config.size)
    run(["cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2",
         "--pbkdf-force-iterations", "1000", "--cipher", "cipher_null-ecb", "--key-size", "256",
         "--key-file", "-", head], input=b"attacker", timeout=60)  # fmt: skip
    config.write(0, head.read_bytes()[: 2 << 20])
    assert "its LUKS header was not written by this machine" in reason(ends())


def test_a_flipped_bit_in_the_encrypted_configuration(victim, ends):
    config = victim.partition("machine-config")
    for offset in range((16 << 20) + 4096, config.size - 4096, 65536):
        config.flip(offset)
    words = ends()
    assert words != RUNS
    assert reason(words)


@pytest.mark.tool("cryptsetup")
def test_a_second_disk_with_the_same_partition_name(victim, ends, bench):
    """Row 16: an attacker's volume is only a candidate; the machine goes on with its own."""
    paths = bench.store.paths(victim.name)
    other = paths.state / "attacker.raw"
    with other.open("wb") as file:
        file.truncate(128 << 20)
    run(["sfdisk", "-q", other], input=b'label: gpt\nname="machine-config"\n', timeout=60)
    part = paths.state / "part"
    with part.open("wb") as file:
        file.truncate(100 << 20)
    run(["cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2",
         "--pbkdf-force-iterations", "1000", "--key-file", "-", part],
        input=b"attacker", timeout=60)  # fmt: skip
    with other.open("r+b") as file:
        file.seek(1 << 20)
        file.write(part.read_bytes()[: 17 << 20])
    disk = bench.store.load(victim.name).config.disks[0]
    victim.change(disks=(
        Disk(file="attacker.raw", format="raw", size=type(disk.size)(128 << 20)), disk,
    ))  # fmt: skip
    assert ends() == RUNS
    # and alone, without the machine's own, it is refused
    victim.partition("machine-config").write(0, b"\0" * 4096)
    text = reason(ends())
    assert text.count("its LUKS header was not written by this machine") == 2, text


def test_the_disk_of_another_machine(victim, ends, bench):
    """Same keyset, same manifest, another TPM: its key opens nothing here."""
    from machineos.trust import configvolume

    config = victim.partition("machine-config")
    area = config.read(0, configvolume.RECORD_OFFSET)
    config.write(configvolume.RECORD_OFFSET, configvolume.header_record(b"k" * 32, area))
    assert "its LUKS header was not written by this machine" in reason(ends())


# --- the store


def blob_of(victim, service, tmp_path, what):
    """Change bytes of a service's blob in the store: its layer or its image manifest."""
    repo = victim.bench.repo / "mos"
    index = json.loads((repo / "index.json").read_text())
    for entry in index["manifests"]:
        data = (repo / "blobs/sha256" / entry["digest"].partition(":")[2]).read_bytes()
        manifest = json.loads(data)
        layers = manifest.get("layers", [])
        if service in str(entry.get("annotations")) and len(layers) == 1 and "config" in manifest:
            return entry["digest"] if what == "manifest" else layers[0]["digest"]
    raise AssertionError(f"no image of {service}: {index}")


def edit_blob(victim, digest, tmp_path, edit):
    with victim.partition("machine-store").mounted(tmp_path / "store") as folder:
        path = folder / "mos/blobs/sha256" / digest.partition(":")[2]
        with path.open("r+b") as file:
            edit(file)


def flip_at(*places):
    def edit(file):
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))

    return edit


def flip_tree(file):
    """Flip a bit in every block of the hash tree, which is behind the squashfs."""
    file.seek(40)
    start = -(-struct.unpack("<Q", file.read(8))[0] // 4096) * 4096
    size = file.seek(0, 2)
    flip_at(*range(start + 4096 + 16, size, 4096))(file)


def test_a_flipped_bit_in_an_image_manifest(victim, ends, bench, tmp_path):
    digest = images_of(bench)["hostfs"]
    edit_blob(victim, digest, tmp_path, flip_at(50))
    assert digest.partition(":")[2][:12] in reason(ends())


def test_a_missing_image(victim, ends, bench, tmp_path):
    digest = images_of(bench)["registry"]
    with victim.partition("machine-store").mounted(tmp_path / "store") as folder:
        (folder / "mos/blobs/sha256" / digest.partition(":")[2]).unlink()
    assert digest.partition(":")[2][:12] in reason(ends())


def test_a_flipped_bit_in_the_verity_tree(victim, ends, bench, tmp_path):
    edit_blob(victim, layer_of(bench, "hostfs"), tmp_path, flip_tree)
    assert reason(ends())


def test_flipped_bits_in_the_root_file_system(victim, ends, bench, tmp_path):
    edit_blob(
        victim, layer_of(bench, "hostfs"), tmp_path,
        lambda file: flip_at(*range(200, file.seek(0, 2), 65536))(file),
    )  # fmt: skip
    assert reason(ends())


def test_a_flipped_bit_in_a_service_stops_only_that(victim, boot, bench, tmp_path):
    edit_blob(victim, layer_of(bench, "registry"), tmp_path, flip_tree)
    with boot(victim.name) as guest:
        guest.wake(240)
        text = guest.wait_until("mosctl status --json | grep -q '\"settled\": true' && "
                                "mosctl status --json", 180)  # fmt: skip
        status = json.loads(text)
        states = {one["name"]: one for one in status["services"]}
        assert not status["good"]
        assert states["registry"]["state"] in {"refused", "failed"}
        assert states["registry"]["why"]
        assert states["alone"]["state"] == "running"
        assert guest.answer() == 0


def images_of(bench):
    """Return the digest of each service's image manifest in the published manifest."""
    out = bench.command(
        "mosb", "manifest", "show", "--repo", f"oci:{bench.repo}", "--name",
        "machine/install:1.0.0", "--project", "test:default", "--json",
    )  # fmt: skip
    targets = json.loads(out.stdout)["install"]["targets"]
    return {one["service_name"]: one["digest"] for one in targets}


def layer_of(bench, service):
    digest = images_of(bench)[service].partition(":")[2]
    manifest = json.loads((bench.repo / "mos/blobs/sha256" / digest).read_bytes())
    return manifest["layers"][0]["digest"]


# --- the EFI partition and the firmware


REFUSED = {"Access Denied", "Security Violation"}


def test_a_flipped_bit_in_the_kernel_image(victim, ends, tmp_path):
    esp = victim.partition("esp")
    path = esp.get(KERNELS[0], tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for name in KERNELS:
        esp.put(path, name)
    assert ends() in REFUSED


def test_a_flipped_bit_in_shim(victim, ends, tmp_path):
    esp = victim.partition("esp")
    path = esp.get(SLOTS[0], tmp_path)
    data = bytearray(path.read_bytes())
    data[0x2000] ^= 1
    path.write_bytes(data)
    for name in SLOTS:
        esp.put(path, name)
    assert ends() in REFUSED


@pytest.mark.tool("sbsign")
def test_an_unsigned_kernel_image(victim, ends, tmp_path):
    esp = victim.partition("esp")
    path = esp.get(KERNELS[0], tmp_path)
    run(["sbattach", "--remove", path], timeout=60)
    for name in KERNELS:
        esp.put(path, name)
    assert ends() in REFUSED


@pytest.mark.tool("sbsign")
@pytest.mark.parametrize("instead_of", [KERNELS, SLOTS], ids=["beside shim", "instead of shim"])
def test_a_kernel_image_of_another_keyset(victim, ends, bench, tmp_path, instead_of):
    stranger = make_keyset(bench, "stranger").key("uki-production")
    esp = victim.partition("esp")
    path = esp.get(KERNELS[0], tmp_path)
    run(["sbattach", "--remove", path], timeout=60)
    run(["sbsign", "--key", stranger.key_path, "--cert", stranger.cert_path,
         "--output", tmp_path / "signed", path], timeout=120)  # fmt: skip
    for name in instead_of:
        esp.put(tmp_path / "signed", name)
    assert ends() in REFUSED


def test_another_kernel_image_of_the_same_keyset(victim, ends, bench, tmp_path):
    """The install image is signed too, but without its medium it does nothing, and it is not what
    opens the configuration for anybody else."""
    esp = victim.partition("esp")
    provision = bench.keyset.root / "bootkit-debug-console/provision.efi"
    for name in KERNELS:
        esp.put(provision, name)
    assert "the disk with the device identity" in reason(ends())


@pytest.mark.tool("qemu-img")
def test_a_command_line_from_the_boot_entry(victim, ends, bench):
    """Row 20: systemd-stub ignores LoadOptions under Secure Boot; the machine boots as signed."""
    nvram = bench.store.paths(victim.name).uefi_nvram
    raw = nvram.with_suffix(".raw")
    qemuimg.convert(nvram, "qcow2", raw, "raw")
    nvram.unlink()
    data = json.loads(variables(bench, raw, "--output-json").read_text())
    ours = "machineos-a".encode("utf-16-le").hex()
    entries = [
        one for one in data["variables"] if one["name"].startswith("Boot0") and ours in one["data"]
    ]
    assert len(entries) == 1
    entries[0]["data"] += "init=/bin/sh rd.break ipe.enforce=0".encode("utf-16-le").hex() + "0000"
    changed = raw.with_suffix(".json")
    changed.write_text(json.dumps({**data, "variables": entries}))
    variables(bench, raw, "--set-json", changed, "--output", raw)
    qemuimg.convert(raw, "raw", nvram, "qcow2")
    assert ends() == RUNS


def variables(bench, raw, *options):
    out = raw.with_suffix(".out.json")
    argv = ["virt-fw-vars", "--input", raw, *options]
    if options[-1] == "--output-json":
        argv.append(out)
    bench.command(*argv)
    return out


def test_secure_boot_off(victim, ends, bench):
    """With other firmware variables PCR 7 is another one, and the TPM keeps its secrets."""
    paths = bench.store.paths(victim.name)
    raw = paths.uefi_nvram.with_suffix(".raw")
    qemuimg.convert(paths.uefi_nvram, "qcow2", raw, "raw")
    paths.uefi_nvram.unlink()
    variables(bench, raw, "--delete", "PK", "--output", raw)
    qemuimg.convert(raw, "raw", paths.uefi_nvram, "qcow2")
    text = reason(ends())
    assert "Secure Boot" in text or "command line" in text, text
