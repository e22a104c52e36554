"""What is in the layer of modules."""

from __future__ import annotations

from pathlib import Path

from machineos.build.os.modules import modules_tree

KERNEL = "6.12.1"


def test_the_modules_of_this_kernel_and_a_place_for_firmware(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for kernel in (KERNEL, "6.12.0"):
        folder = root / "usr/lib/modules" / kernel
        (folder / "kernel").mkdir(parents=True)
        (folder / "kernel/loop.ko.xz").write_bytes(b"module")
        (folder / "link").symlink_to("kernel")
    (tmp_path / "tree/left").mkdir(parents=True)
    modules_tree(root, KERNEL, tmp_path / "tree")
    found = sorted(str(path.relative_to(tmp_path / "tree")) for path in tmp_path.rglob("tree/**/*"))
    assert found == [
        "usr", "usr/lib", "usr/lib/firmware", "usr/lib/modules", f"usr/lib/modules/{KERNEL}",
        f"usr/lib/modules/{KERNEL}/kernel", f"usr/lib/modules/{KERNEL}/kernel/loop.ko.xz",
        f"usr/lib/modules/{KERNEL}/link",
    ]  # fmt: skip
    assert (tmp_path / f"tree/usr/lib/modules/{KERNEL}/link").is_symlink()
