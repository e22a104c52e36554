"""What a kernel image (UKI) says of itself: where its sections are, and its policy version.

Pure, and of a file that is verified as a whole (it lies under dm-verity): what is wrong with it is
told, nothing is guessed. Follows the PE format as far as the table of sections.
Shared with the initrd: standard library only.
"""

from __future__ import annotations

import struct

from machineos.errors import VerificationError
from machineos.trust.measure.tpm_policy import check_version

HEAD_SIZE = 16 << 10
"""How much of a UKI has to be read to find its sections."""
MAX_RELEASE = 4096
_SECTION = struct.Struct("<8sIIII")
_SECTION_SIZE = 40
_MAX_SECTIONS = 96


def find_section(head: bytes, name: str) -> tuple[int, int]:
    """Return offset and size of the content of a section, out of the first bytes of a UKI.

    Raises: VerificationError.
    """
    try:
        if head[:2] != b"MZ":
            raise VerificationError("the boot image is not a PE file")
        (start,) = struct.unpack_from("<I", head, 60)
        if head[start : start + 4] != b"PE\0\0":
            raise VerificationError("the boot image is not a PE file")
        (count,) = struct.unpack_from("<H", head, start + 6)
        (optional,) = struct.unpack_from("<H", head, start + 20)
        table = start + 24 + optional
        for number in range(min(count, _MAX_SECTIONS)):
            place = table + _SECTION_SIZE * number
            label, size, _, raw, offset = _SECTION.unpack_from(head, place)
            if label.rstrip(b"\0") == name.encode():
                return offset, min(size, raw)
    except struct.error as error:
        raise VerificationError("the boot image is cut short") from error
    raise VerificationError(f"the boot image has no section {name}")


def policy_version(release: bytes) -> str:
    """Return the policy version that the section ``.osrel`` names.

    Raises: VerificationError (it names none, or several), DocumentError (it is not four digits).
    """
    key = b"VERSION_ID="
    found = [line.removeprefix(key) for line in release.split(b"\n") if line.startswith(key)]
    if len(found) != 1:
        raise VerificationError("the boot image does not say its policy version")
    return check_version(found[0].decode("ascii", "replace"))
