from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import machineos
from effects import read_modules
from machineos.build.media import installmedia
from machineos.build.os import appliance
from machineos.build.os.bootkit import Anchored
from machineos.build.os.imports import followed
from machineos.build.os.workshop import Workshop, hostfs_layout
from machineos.errors import MissingError
from machineos.trust.keys.keyset import Keyset
from vectors.clock import FixedClock

PACKAGE = Path(machineos.__file__).parent


# What was once forgotten, or could be: of each way on which a maker comes to its code.
INITRD_MADE_BY = (
    "build/os/initrd.py", "build/os/initrdplan.py", "build/os/contents.py", "build/os/imports.py",
    "build/os/__init__.py", "build/__init__.py", "host/pack/tools.py", "host/pack/depmod.py",
    "host/pack/elf.py", "host/pack/mmdebstrap.py", "core/run.py", "errors.py", "__init__.py",
)  # fmt: skip
INITRD_HOLDS = ("boot/main.py", "boot/phases/unseal.py", "trust/verify/chain.py")
BOOTKIT_MADE_BY = (
    "build/os/appliance.py", "build/os/bootkit.py", "build/os/workshop.py", "build/os/uki.py",
    "host/pack/shim.py", "host/pack/sbsign.py", "trust/keys/efi.py", "trust/keys/signer.py",
    "trust/measure/secureboot.py", "trust/measure/tpm_policy.py", "build/recipe/filesystem.py",
    "build/recipe/config.py", "build/recipe/image.py", "host/pack/tools.py",
    "host/kernel/ipepolicy.py",
)  # fmt: skip
UNRELATED = (
    "cli/app.py", "cli/developer/mosb.py", "vm/qemu/plan.py", "vm/document.py", "install/write.py",
    "service/plan/steps.py", "daemon/loop.py", "build/publish/plan.py",
)  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "machineos", ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path / "machineos"


def changing(package: Path, names: tuple[str, ...], digest: Callable[[Path], str]) -> set[str]:
    """Return those of the files whose change changes the digest."""
    before, found = digest(package), set()
    for name in names:
        text = (package / name).read_bytes()
        (package / name).write_bytes(text[:-1] + b"#")  # as long as before
        found |= {name} if digest(package) != before else set()
        (package / name).write_bytes(text)
    assert digest(package) == before
    return found


def test_a_keyset_that_lacks_something_is_refused_before_any_work(
    own: Keyset, tmp_path: Path
) -> None:
    """The predecessor's public one: it was said after all was built."""
    own.cross_certificate_path.unlink()
    shop = Workshop(tmp_path / "cache", FixedClock(), version="1", epoch=7)
    with pytest.raises(MissingError) as caught:
        appliance.build_bootkit(Anchored(own), shop)
    assert caught.value.hint == "have it issued: trust keyset upgrade k"
    assert not shop.cache.exists()
    assert not own.bootkit.exists()


def test_a_change_of_what_makes_or_fills_the_initrd_is_another_initrd(package: Path) -> None:
    related = INITRD_MADE_BY + INITRD_HOLDS
    assert changing(package, related + UNRELATED, appliance.initrd_source) == set(related)


def test_a_change_of_what_makes_the_bootkit_is_another_bootkit(package: Path) -> None:
    names = BOOTKIT_MADE_BY + UNRELATED
    assert changing(package, names, appliance.bootkit_source) == set(BOOTKIT_MADE_BY)


@pytest.mark.parametrize("maker", ["initrd", "bootkit", "appliance"])
def test_nothing_that_a_maker_imports_is_left_out(maker: str) -> None:
    """Found a second time, by what finds the effects of modules."""
    modules, waiting = read_modules(), {f"machineos.build.os.{maker}"}
    reached: set[str] = set()
    while waiting:
        reached |= waiting
        waiting = {n for one in waiting for n in modules[one].imports if n in modules} - reached
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    sources = {name: path.read_bytes() for name, path in files.items()}
    found = followed(sources, [f"build/os/{maker}.py"])
    assert reached <= {dotted(file) for file in found}
    beside = {file for file in found if dotted(file) not in reached}
    assert {Path(file).name for file in beside} == {"__init__.py"}  # run on the way to others


def dotted(file: str) -> str:
    path = file.removesuffix(".py").removesuffix("__init__").strip("/")
    return f"machineos.{path.replace('/', '.')}".strip(".")


@pytest.mark.parametrize(
    ("there", "what"),
    [
        ((), "hostfs"),
        (("hostfs/index.json",), "bootkit"),
        # A keyset of the predecessor has a shim and no image of ours.
        (("hostfs/index.json", "bootkit/shim.efi"), "bootkit"),
        (("hostfs/index.json", "bootkit/shim.efi", "bootkit/provision.efi"), "bootkit"),
    ],
)
def test_media_need_a_hostfs_and_a_bootkit(
    own: Keyset, tmp_path: Path, there: tuple[str, ...], what: str
) -> None:
    places = {"hostfs": hostfs_layout(own.root, "ordinary"), "bootkit": own.bootkit}
    for name in there:
        room, _, file = name.partition("/")
        places[room].mkdir(parents=True, exist_ok=True)
        (places[room] / file).touch()
    with pytest.raises(MissingError, match=f"keyset k has no {what}") as caught:
        installmedia.build_media(
            own, own.project("default"), output=tmp_path / "out", variant="ordinary",
            passphrase=None, manifest="", clock=FixedClock(), say=lambda _text: None,
        )  # fmt: skip
    assert caught.value.hint == f"build it: mosb {what} build --keyset k"
    assert not (tmp_path / "out").exists()
