"""What is said of sources when they are opened."""

from __future__ import annotations

from machineos.cli.developer.opener import Opener
from machineos.cli.options import Reach


def test_the_tag_that_nobody_named_is_said_once() -> None:
    """It is the one that docker and skopeo take, and it moves."""
    said: list[str] = []
    with Opener(Reach(plain_http=True), said.append) as opener:
        for _ in range(2):
            assert opener.image("docker://localhost:1/x")[1] == "latest"
        opener.image("docker://localhost:1/x:1")
        opener.image(f"docker://localhost:1/x@sha256:{'0' * 64}")
        opener.image("oci:/nowhere:1")
    assert said == ["docker://localhost:1/x names no tag: taking :latest"]
