"""Whom the kernel of a booted appliance believes: what the initrd counts on, seen from outside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from machineos.build.os.bootkit import Anchored
from machineos.build.recipe.filesystem import make_layer
from machineos.core.word import RootHash
from vm.appliance import Bench
from vm.guest import Guest

KEYS = r"""
from machineos.host.kernel import keyring
for name in (keyring.MACHINE, keyring.PLATFORM):
    print(name, *keyring.list_keys(name), sep="|")
"""


def test_the_firmware_gave_it_our_two_keys(live: Guest, bench: Bench) -> None:
    """The UKI certificate, out of shim, and the one of db."""
    lines = live.python(KEYS).splitlines()
    assert [line.split("|")[0] for line in lines] == [".machine", ".platform"]
    for line, role in zip(lines, ("UKI Production: ", "UEFI DB: "), strict=True):
        _, *held = line.split("|")
        assert len(held) == 1
        assert role in held[0]


@pytest.mark.parametrize("role", ["uefi-db", "uki-production"])
def test_the_keys_of_the_firmware_open_volumes_too(
    live: Guest, bench: Bench, tmp_path: Path, role: str
) -> None:
    """Why ``.platform`` and ``.machine`` are counted: Debian's dm-verity asks the one after its own
    keyrings, and the other is a part of these. So what is in them is believed as a publisher is
    (docs/trust, "In the kernel")."""
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy("/usr/bin/busybox", tree / "busybox")
    layer = make_layer(tree, tmp_path / "layer", epoch=1_767_225_600)
    live.put(layer.path.read_bytes(), "/run/layer")
    signature = Anchored(bench.keyset).signer(role).sign_root_hash(RootHash(layer.root_hash))
    live.put(signature, "/run/sig")
    done = live.sh(
        f"veritysetup open --hash-offset={layer.data_size} --root-hash-signature=/run/sig"
        f" /run/layer platform /run/layer {layer.root_hash} 2>&1"
    )
    live.sh("veritysetup close platform; rm /run/layer /run/sig")
    assert done, done.output
