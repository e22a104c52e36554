from __future__ import annotations

from pathlib import Path

import pytest

from machineos.cli.developer import image_shape as shape
from machineos.core.digest import Digest
from machineos.errors import UsageError
from machineos.oci.model.documents import Descriptor

DESCRIPTOR = Descriptor(media_type="a/b", digest=Digest.of(b"x"), size=1)


def test_values_of_a_recipe() -> None:
    assert shape.substitutions(("A=1", "B=x=y", "C=")) == {"A": "1", "B": "x=y", "C": ""}
    for texts, message in (
        (("A",), "--substitute A: is not NAME=VALUE"),
        (("=1",), "--substitute =1: is not NAME=VALUE"),
        (("A=1", "A=2"), "--substitute A: is given twice"),
    ):
        with pytest.raises(UsageError) as caught:
            shape.substitutions(texts)
        assert caught.value.message == message


def test_a_layout() -> None:
    assert shape.layout_folder("oci:a/b") == Path("a/b")
    for text in ("a/b", "oci:", ""):
        with pytest.raises(UsageError, match="is not oci:DIR"):
            shape.layout_folder(text)


def test_a_platform() -> None:
    assert shape.platform_pair("linux/arm64") == ("linux", "arm64")
    with pytest.raises(UsageError, match="--platform linux is not os/architecture"):
        shape.platform_pair("linux")


def test_what_was_built() -> None:
    assert shape.images_json({"t": DESCRIPTOR}, "oci:d") == [
        {"tag": "t", "layout": "oci:d", **DESCRIPTOR.to_json()}
    ]
    assert shape.image_lines({"t": DESCRIPTOR}, "oci:d") == [f"oci:d:t {DESCRIPTOR.digest}"]
