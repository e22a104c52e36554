"""Which layers can be read, and how each is compressed."""

from __future__ import annotations

from machineos.build.recipe.compression import TAR_TYPES


def test_every_media_type_of_an_archive() -> None:
    oci = "application/vnd.oci.image.layer"
    docker = "application/vnd.docker.image.rootfs.diff.tar"
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar"
    assert {
        f"{kind}{ending}"
        for kind, endings in (
            (f"{oci}.v1.tar", ("", "+gzip", "+zstd")),
            (f"{oci}.nondistributable.v1.tar", ("", "+gzip", "+zstd")),
            (docker, ("", ".gzip", ".zstd")),
            (foreign, ("", ".gzip", ".zstd")),
        )
        for ending in endings
    } == TAR_TYPES
