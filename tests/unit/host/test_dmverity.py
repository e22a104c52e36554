from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import VerificationError
from machineos.host.dmverity import Volume, argv_open, close_volume, open_volume, parse_status

HASH = "ab" * 32
VOLUME = Volume(Path("/store/blob"), "x-verity", HASH, 8192, Path("/run/x.p7s"))

STATUS = f"""\
/dev/mapper/x-verity is active and is in use.
  type:        VERITY
  status:      verified
  hash type:   1
  data block:  4096
  hash block:  4096
  hash name:   sha256
  salt:        {"00" * 32}
  data device: /dev/loop0
  size:        16 [512-byte units] (8192 [bytes])
  mode:        readonly
  hash device: /dev/loop0
  hash offset: 16 [512-byte units] (8192 [bytes])
  root hash:   {HASH}
  root hash signature: yes
  flags:       panic_on_corruption
"""


def test_argv_always_has_a_signature() -> None:
    argv = argv_open(VOLUME)
    assert argv[:2] == ["veritysetup", "open"]
    assert "--root-hash-signature=/run/x.p7s" in argv
    assert "--hash-offset=8192" in argv
    assert argv[-4:] == ["/store/blob", "x-verity", "/store/blob", HASH]


def test_recorded_status() -> None:
    fields = parse_status(STATUS)
    assert (fields["type"], fields["status"], fields["root hash"]) == ("VERITY", "verified", HASH)
    assert fields["flags"] == "panic_on_corruption"
    assert parse_status("/dev/mapper/x is inactive.\n") == {}


@pytest.mark.tool("veritysetup")
def test_what_is_no_volume(tmp_path: Path) -> None:
    """Without device-mapper, or with it: a file of zeros is never opened."""
    image, signature = tmp_path / "image", tmp_path / "p7s"
    image.write_bytes(bytes(16384))
    signature.write_bytes(b"none")
    with pytest.raises(VerificationError, match="image"):
        open_volume(Volume(image, "machineos-test-verity", HASH, 8192, signature))
    close_volume("machineos-test-verity")
