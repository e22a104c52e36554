"""Which layers can be read, and how each is compressed."""

from __future__ import annotations

from machineos.build.recipe.compression import TAR_TYPES


def test_every_media_type_of_an_archive() -> None:
    oci = "application/vnd.oci.image.layer"
    docker = "application/vnd.docker.image.rootfs.diff.tar"
    assert {
        f"{oci}.v1.tar": "",
        f"{oci}.v1.tar+gzip": "gzip",
        f"{oci}.v1.tar+zstd": "zstd",
        f"{oci}.nondistributable.v1.tar": "",
        f"{oci}.nondistributable.v1.tar+gzip": "gzip",
        f"{oci}.nondistributable.v1.tar+zstd": "zstd",
        docker: "",
        f"{docker}.gzip": "gzip",
        f"{docker}.zstd": "zstd",
    } == TAR_TYPES
