"""After hand-over root gets no secret out of the TPM or the kernel (issue 2, part 9)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

import machineos
from vm.guest import Guest

# The signed policies are public: they are in the UKI on the EFI partition.
TRY = r"""
import glob, json, os, struct, subprocess, sys
sys.path.insert(0, "/run/package.zip")
from machineos.core.clock import SystemClock
from machineos.errors import MachineOSError
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.transport import DeviceTransport
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import Operation, SessionKind, sha256
from machineos.trust.seal import unseal as seal
from machineos.trust.seal.choice import DOORS
from machineos.trust.seal.layout import STORAGE_ROOT
from machineos.trust.measure.tpm_policy import parse_policies, policy_key, policy_ref, version_index

def by_hand(tpm, index, policy, ref):
    # As the initrd does it, without any of its checks: what refuses is the TPM.
    signer = policy_key(key)
    loaded = tpm.load_external(signer.public)
    ticket = tpm.verify_signature(loaded, sha256(policy.policy, ref), policy.signature)
    tpm.flush(loaded.value)
    with tpm.session(SessionKind.POLICY, tpm.read_storage_key(STORAGE_ROOT)) as session:
        def prove():
            tpm.policy_pcr(session, *policy.pcrs)
            name = version_index(signer)
            tpm.policy_nv(session, name, policy.version.encode(), Operation.UNSIGNED_LE)
            tpm.policy_authorize(session, policy.policy, signer.name, ticket, ref)
        return tpm.nv_read(tpm.nv_read_public(index), Auth(session, encrypt=True), prepare=prove)

data = open("/run/esp/EFI/machineos-a/grubx64.efi", "rb").read()
pe = struct.unpack_from("<I", data, 60)[0]
count, = struct.unpack_from("<H", data, pe + 6)
table = pe + 24 + struct.unpack_from("<H", data, pe + 20)[0]
sections = {}
for n in range(count):
    name, size, _, raw, at = struct.unpack_from("<8sIIII", data, table + 40 * n)
    sections[name.rstrip(b"\0").decode()] = data[at:at + min(size, raw)]
policies = parse_policies(sections[".pcrsig"])
key = sections[".pcrpkey"]
out = {"policies": len(policies), "results": {}}
with Tpm(DeviceTransport(), clock=SystemClock(), random=os.urandom) as tpm:
    secret = [i for i in seal.Index if i not in (seal.Index.LAYOUT, seal.Index.POLICY_VERSION)]
    def attempt(label, act):
        try:
            out["results"][label] = "READ %d" % len(act())
        except MachineOSError as error:
            out["results"][label] = error.message
    # As it was left; then root extends what the doors extend, which anybody may.
    for extended in (None, "first", "second"):
        for pcr, constant in DOORS[extended].items() if extended else ():
            tpm.pcr_extend(pcr, constant)
        for index in secret:
            plain = lambda: tpm.nv_read(tpm.nv_read_public(index))
            attempt(f"{index.name} plain {extended}", plain)
            for phase in ("first", "second"):
                options = dict(policies=policies, policy_key_pem=key, srk_name=None, phase=phase)
                def ours():
                    with seal.opened(tpm, **options) as sealed:
                        return sealed.read(index)
                attempt(f"{index.name} {phase} {extended}", ours)
            for policy in policies:
                hand = lambda: by_hand(tpm, index, policy, policy_ref(policy.purpose))
                attempt(f"{index.name} by hand {policy.purpose} {extended}", hand)
    out["layout"] = tpm.nv_read(tpm.nv_read_public(seal.Index.LAYOUT)).decode()
print(json.dumps(out))
"""


def whole_package() -> bytes:
    """Return our package as a zip that Python can import from."""
    folder = Path(machineos.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in folder.rglob("*.py"):
            archive.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


@pytest.mark.attack(
    "root",
    "asks the TPM for its secrets with the signed policy of this very image",
    "refused until the next reset",
)
def test_root_reads_no_secret_from_the_tpm(live: Guest) -> None:
    live.must(
        "mkdir -p /run/esp; modprobe -q vfat; "
        "mount -t vfat -o ro $(blkid -t PARTLABEL=esp -o device) /run/esp"
    )
    live.put(whole_package(), "/run/package.zip")  # the appliance has nothing that speaks to a TPM
    try:
        out = json.loads(live.python(TRY).splitlines()[-1])
    finally:
        live.sh("umount /run/esp")
    assert out["policies"] == 2  # one for each phase
    assert out["layout"] == "00000005"  # the TPM answers; what is not secret can be read
    assert len(out["results"]) == 3 * 5 * 5
    assert not [item for item in out["results"].items() if item[1].startswith("READ")], out
    by_hand = [text for name, text in out["results"].items() if " by hand " in name]
    assert len(by_hand) == 30
    assert all("the TPM refused" in text for text in by_hand), by_hand


@pytest.mark.attack(
    "root",
    "reads the TPM as its owner",
    "refused",
)
def test_the_owner_without_password_reads_nothing(live: Guest) -> None:
    code = r"""
import struct
TPM_RH_OWNER = 0x40000001
with open("/dev/tpm0", "r+b", buffering=0) as tpm:
    for index in (0x1500001, 0x1500021, 0x1500022, 0x1500030, 0x1500040):
        for auth in (TPM_RH_OWNER, index | 0):
            session = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
            body = struct.pack(">II", auth, index) + struct.pack(">I", len(session)) + session
            body += struct.pack(">HH", 16, 0)
            tpm.write(struct.pack(">HII", 0x8002, 10 + len(body), 0x14E) + body)
            print(hex(index), hex(auth), hex(struct.unpack(">I", tpm.read(4096)[6:10])[0]))
"""
    lines = live.python(code).splitlines()
    assert len(lines) == 10
    assert not [line for line in lines if line.endswith(" 0x0")], lines


def test_the_initrd_tried_its_own_doors(live: Guest) -> None:
    """It closed each, asked again, and was refused (boot/phases/first_door, door); the first before
    it knew who it is, and so before it looked at a disk."""
    said = live.must("dmesg | grep machineos:")
    places = [
        said.index(text)
        for text in (
            "the TPM gives out no key any more",
            "this is ",
            "generation ",
            "the TPM gives out no secret any more",
        )
    ]
    assert places == sorted(places)


def test_the_hosts_ca_is_that_of_this_machine(live: Guest) -> None:
    """Made by the initrd of the install medium, where the key of the identity is at hand."""
    live.put(whole_package(), "/run/package.zip")
    code = r"""
import os, sys
sys.path.insert(0, "/run/package.zip")
from pathlib import Path
from machineos.trust.verify.chain import verify_sudi
from machineos.trust.verify.hostca import verify_host_ca
trust = Path("/run/machineos/trust")
identity = verify_sudi((trust / "device.pem").read_bytes(),
                       ca_pem=(trust / "sudi-ca.pem").read_bytes(), at=None)
made = verify_host_ca(Path("/config/host-ca.pem").read_bytes(),
                      Path("/config/host-ca.p7s").read_bytes(), identity)
print(oct(os.stat("/config/host-ca.key").st_mode & 0o777), made.fingerprint)
"""
    assert live.python(code).splitlines()[-1].startswith("0o600 sha256:")


@pytest.mark.attack(
    "root",
    "looks for keys in the kernel's keyrings",
    "there is none",
)
def test_no_key_is_in_a_keyring_that_root_reads(live: Guest) -> None:
    keys = live.must("cat /proc/keys")
    assert "machineos:configuration-key" not in keys
    # systemd's names of its own runs and the kernel's empty PIN for OPAL disks are no secrets.
    public = ("invocation_id:", "opal-boot-pin:")
    users = [line for line in keys.splitlines() if " user " in line]
    assert [line for line in users if line.split()[8] not in public] == []
    table = live.must("dmsetup table --showkeys")
    row = next(line for line in table.splitlines() if line.startswith("machine-config:"))
    assert " :" in row, row
    assert ":logon:" in row, row


@pytest.mark.attack(
    "root",
    "looks for the configuration key in files and environments",
    "it is in none",
)
def test_the_key_is_in_no_file_and_no_environment(live: Guest) -> None:
    """What the initrd left in /run is public: certificates, signatures, the hand-over."""
    finding = "find /run/machineos -xdev -type f -not -path '*/fresh/*'"
    names = {name.rpartition("/")[2] for name in live.must(finding).split()}
    assert "boot.json" in names
    assert not [name for name in names if "identity" in name or name.startswith("privkey")]
    assert live.must(f"grep -l 'PRIVATE KEY' $({finding}) || true") == ""
    assert live.must("tr '\\0' '\\n' < /proc/1/environ | grep -i key || true") == ""
