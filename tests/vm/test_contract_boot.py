"""The real host of the boot on a kernel that enforces: the contract that the fake keeps too.

A running appliance has what this machine has not: a device mapper, IPE, keyrings with our keys. The
package and the contract go there as a zip; what it leaves behind is taken away again.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import contracts
from contracts.boot import FILES, MOUNTS
from contracts.trust import KERNELS
from machineos.build.os.bootkit import Anchored
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.veritylayer import VerityLayer
from machineos.core.word import RootHash
from machineos.host.kernel.ipepolicy import closed_policy_text
from machineos.oci.model.atomfs import root_hash_annotations
from machineos.trust.keys.signer import FileSigner
from vm.appliance import Bench
from vm.guest import BOOT, Guest
from vm.test_door import whole_package

WHERE = "/run/contract"
NEWER = closed_policy_text(9, RootHash("ab" * 32))
# In a mount namespace of its own: nothing that it mounts is seen by the machine.
RUN = r"""
import ctypes, os, sys
sys.path.insert(0, "/run/contract.zip")
os.unshare(os.CLONE_NEWNS)
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
libc = ctypes.CDLL(None)
assert libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
# A session keyring from which root's own can be reached, as the installer's unit has it.
KEYCTL, JOIN, LINK, USER, SESSION = 250, 1, 8, -4, -3
assert libc.syscall(KEYCTL, JOIN, None) > 0
assert libc.syscall(KEYCTL, LINK, USER, SESSION) == 0
from contracts.real import main
main("{group}", "{folder}", "{given}")
"""
LOOK = r"""
import json, sys
sys.path.insert(0, "/run/contract.zip")
from pathlib import Path
from contracts.real import RealBed
folder = Path("/run/contract/look")
folder.mkdir(parents=True)
host = RealBed(folder).host
parts = host.list_partitions()
esp = next(part for part in parts if part.label == "esp")
config = next(part for part in parts if part.label == "machine-config")
print(json.dumps({
    "parts": [[part.disk, part.label] for part in parts],
    "disks": [str(path) for path in host.list_disks()],
    "esp": host.read_label(esp.device),
    "magic": host.read_header(config.device, 6).hex(),
}))
"""


def zipped() -> bytes:
    """Return package and contract as a zip that Python can import from."""
    buffer = io.BytesIO(whole_package())
    folder = Path(contracts.__file__).parent
    with zipfile.ZipFile(buffer, "a") as archive:
        for path in folder.rglob("*.py"):
            archive.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> VerityLayer:
    """A small volume that nobody has signed yet."""
    folder = tmp_path_factory.mktemp("layer")
    (folder / "tree").mkdir()
    shutil.copy("/usr/bin/busybox", folder / "tree/busybox")
    return make_layer(folder / "tree", folder / "layer", epoch=1_767_225_600)


@pytest.fixture
def guest(live: Guest, layer: VerityLayer) -> Iterator[Guest]:
    """A running appliance with the zip, and afterwards without what the contract leaves open."""
    live.put(zipped(), "/run/contract.zip")
    yield live
    live.sh("cryptsetup close contract; cryptsetup close contract-new")
    live.sh(f"dmsetup remove {layer.digest.hex}-verity")
    live.sh(f"rm -rf {WHERE} /run/contract.zip")


def given(guest: Guest, bench: Bench, layer: VerityLayer) -> None:
    """Send what the contract of an enforcing kernel needs."""
    keyset = bench.keyset
    publisher = FileSigner.open(bench.project.pair)
    device = FileSigner.open(bench.project.list_sudis()[0].pair)  # a chain of its own: a stranger
    about = {
        "tree": layer.data_size + 4096 + 16,  # in the hash tree, behind its superblock
        "media_type": layer.media_type,
        "annotations": root_hash_annotations(layer.root_hash),
    }
    files = {
        "layer": layer.path.read_bytes(),
        "about.json": json.dumps(about).encode(),
        "good.p7s": publisher.sign_root_hash(RootHash(layer.root_hash)),
        "stranger.p7s": device.sign_root_hash(RootHash(layer.root_hash)),
        "publisher.der": bench.project.pair.certificate_der(),
        "stranger.der": bench.project.list_sudis()[0].pair.certificate_der(),
        "policy.p7s": Anchored(keyset).signer("uefi-db").sign_content(NEWER),
    }
    guest.must(f"mkdir -p {WHERE}/given")
    for name, data in files.items():
        guest.put(data, f"{WHERE}/given/{name}")


@pytest.mark.parametrize("group", ["files", "mounts", "kernel"])
def test_a_booted_machine_keeps_the_contract(
    guest: Guest, bench: Bench, layer: VerityLayer, group: str
) -> None:
    if group == "kernel":
        given(guest, bench, layer)
    contracts_of: dict[str, Sequence[Callable[..., None]]] = {
        "files": FILES, "mounts": MOUNTS, "kernel": KERNELS,
    }  # fmt: skip
    code = RUN.format(group=group, folder=f"{WHERE}/{group}", given=f"{WHERE}/given")
    kept = guest.python(code, timeout=BOOT).split()
    assert kept == [contract.__name__ for contract in contracts_of[group]]


def test_the_disks_of_a_booted_machine(guest: Guest) -> None:
    """Through sysfs and the devices themselves, as the initrd sees them."""
    found = json.loads(guest.python(LOOK).splitlines()[-1])
    labels: dict[str, set[str]] = {}
    for disk, label in found["parts"]:
        labels.setdefault(disk, set()).add(label)
    ours = [disk for disk, names in labels.items() if "machine-config" in names]
    assert len(ours) == 1
    assert {"esp", "machine-config", "machine-store", "machine-data"} <= labels[ours[0]]
    assert f"/dev/{ours[0]}" in found["disks"]
    assert not [disk for disk in found["disks"] if "loop" in disk or "dm-" in disk]
    assert found["esp"] == "ESP"
    assert found["magic"] == b"LUKS\xba\xbe".hex()
