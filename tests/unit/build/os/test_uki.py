"""Unified kernel images: parsed again, signed by sbsign, and measured by an independent fold."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineos.build.os.uki import MEASURED, assemble, measure, read_sections
from machineos.core.run import run
from machineos.errors import ToolError
from vectors.certificates import key, publisher
from vectors.pe import efi_binary

SBAT = b"sbat,1,x,sbat,1,https://x\nmachineos,1,machineOS,machineos,1,docs/boot\n"
STUB = efi_binary(
    b"\xc3" * 700, extra=((b".sbat", b"old sbat".ljust(600)), (b".data", b"d" * 5000))
)
SECTIONS = {
    ".osrel": b"ID=machineos\n",
    ".cmdline": b"console=ttyS0\0",
    ".pcrsig": b"{}",
    ".initrd": b"i" * 70_001,
    ".linux": b"MZ" + b"k" * 4096,
}


def sound(image: bytes, stub: bytes = STUB) -> list[pefile.SectionStructure]:
    """Check what firmware relies on and return the sections."""
    parsed = pefile.PE(data=image)
    # Left out: what it says about the stub itself, and about bytes that are frequent.
    original = pefile.PE(data=stub)
    known = original.get_warnings()
    assert not [text for text in parsed.get_warnings() if text not in known and " up " not in text]
    optional = parsed.OPTIONAL_HEADER
    raw_end, virtual_end = optional.SizeOfHeaders, 0
    for number, section in enumerate(parsed.sections):
        # The stub of Debian 12 has sections of its own that are not aligned.
        ours = number >= len(original.sections)
        assert not ours or section.VirtualAddress % optional.SectionAlignment == 0
        assert section.PointerToRawData % optional.FileAlignment == 0
        assert section.SizeOfRawData % optional.FileAlignment == 0
        assert section.VirtualAddress >= virtual_end
        assert section.PointerToRawData >= raw_end
        raw_end = section.PointerToRawData + section.SizeOfRawData
        virtual_end = section.VirtualAddress + max(section.Misc_VirtualSize, 1)
    assert raw_end == len(image)
    assert optional.SizeOfImage % optional.SectionAlignment == 0
    assert virtual_end <= optional.SizeOfImage < virtual_end + 2 * optional.SectionAlignment
    assert optional.CheckSum == 0
    assert parsed.FILE_HEADER.PointerToSymbolTable == 0
    return list(parsed.sections)


def test_it_parses_again() -> None:
    image = assemble(STUB, SECTIONS, sbat=SBAT)
    names = [section.Name.rstrip(b"\0").decode() for section in sound(image)]
    assert names == [".text", ".sbat", ".data", *SECTIONS]
    found = read_sections(image)
    assert {name: found[name] for name in SECTIONS} == SECTIONS
    assert found[".sbat"] == SBAT
    assert found[".text"] == b"\xc3" * 700
    assert found[".data"] == b"d" * 5000


def test_the_same_sections_give_the_same_bytes() -> None:
    assert assemble(STUB, SECTIONS, sbat=SBAT) == assemble(STUB, dict(SECTIONS), sbat=SBAT)


def test_trailing_data_is_cut_off() -> None:
    stub = bytearray(STUB + b"symbol table")
    stub[0x40 + 12 : 0x40 + 20] = len(STUB).to_bytes(4, "little") + b"\x07\0\0\0"
    assert assemble(bytes(stub), SECTIONS, sbat=SBAT) == assemble(STUB, SECTIONS, sbat=SBAT)


contents = st.dictionaries(
    st.sampled_from([name for name in MEASURED if name != ".sbat"] + [".pcrsig"]),
    st.binary(min_size=1, max_size=9000),
    max_size=9,
)


@settings(max_examples=40)
@given(contents, st.binary(min_size=1, max_size=600).filter(lambda text: text[-1] != 0))
def test_any_sections(sections: dict[str, bytes], sbat: bytes) -> None:
    image = assemble(STUB, sections, sbat=sbat)
    sound(image)
    found = read_sections(image)
    assert {name: found[name] for name in sections} == sections
    assert found[".sbat"] == sbat


@pytest.mark.parametrize(
    ("stub", "sections", "sbat", "part"),
    [
        (b"", {}, SBAT, "not a PE file"),
        (b"MZ" + bytes(100), {}, SBAT, "not a PE file"),
        (STUB[:0x60], {}, SBAT, "not a PE file"),
        (efi_binary(), {}, SBAT, "no .sbat section"),
        (STUB, {}, bytes(5000), "SBAT text is longer"),
        (STUB, {f".s{n}": b"x" for n in range(30)}, SBAT, "no room"),
        (STUB, {f".s{n}": b"x" for n in range(100)}, SBAT, "too many sections"),
        (STUB, {".longname": b"x"}, SBAT, "name"),
    ],
    ids=range(8),
)
def test_refused(stub: bytes, sections: dict[str, bytes], sbat: bytes, part: str) -> None:
    with pytest.raises(ToolError, match=part):
        assemble(stub, sections, sbat=sbat)


def test_read_sections_of_something_else() -> None:
    with pytest.raises(ToolError, match="not a PE file"):
        read_sections(b"text")


def fold(*records: bytes) -> bytes:
    """PCR extension, written once more from the TPM specification."""
    pcr = b"\0" * 32
    for record in records:
        event = hashlib.new("sha256")
        event.update(record)
        extended = hashlib.new("sha256")
        extended.update(pcr)
        extended.update(event.digest())
        pcr = extended.digest()
    return pcr


def test_measure_is_in_the_order_of_the_stub() -> None:
    sections = {".initrd": b"i", ".linux": b"l", ".cmdline": b"c\0", ".pcrsig": b"left out"}
    assert measure(sections) == fold(b".linux\0", b"l", b".cmdline\0", b"c\0", b".initrd\0", b"i")
    assert measure({}) == bytes(32)


@given(contents)
def test_measure_is_the_fold(sections: dict[str, bytes]) -> None:
    order = ".linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey .profile .dtbauto .hwids"  # fmt: skip  # noqa: E501
    records = []
    for name in order.split():
        if name in sections:
            records += [name.encode() + b"\0", sections[name]]
    assert measure(sections) == fold(*records)
    changed = {**sections, ".pcrsig": b"other"}
    assert measure(changed) == measure(sections)


def sign_and_verify(image: bytes, folder: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization

    (folder / "in.efi").write_bytes(image)
    (folder / "cert.pem").write_bytes(publisher().but(issuer_name=None, issuer_key=None).pem())
    (folder / "key.pem").write_bytes(
        key("publisher").private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    signed = run(["sbsign", "--key", folder / "key.pem", "--cert", folder / "cert.pem",
                  "--output", folder / "out.efi", folder / "in.efi"], timeout=60)  # fmt: skip
    assert b"warning" not in signed.stderr
    verified = run(["sbverify", "--cert", folder / "cert.pem", folder / "out.efi"], timeout=60)
    assert "Signature verification OK" in verified.text
    assert b"warning" not in verified.stderr
    return (folder / "out.efi").read_bytes()


@pytest.mark.tool("sbsign")
@pytest.mark.tool("sbverify")
def test_the_signing_tools_take_it_and_change_no_section(tmp_path: Path) -> None:
    image = assemble(STUB, SECTIONS, sbat=SBAT)
    signed = sign_and_verify(image, tmp_path)
    assert read_sections(signed) == read_sections(image)
    bad = bytearray(signed)
    bad[bad.index(b"console=ttyS0")] ^= 1
    (tmp_path / "bad.efi").write_bytes(bytes(bad))
    result = run(["sbverify", "--cert", tmp_path / "cert.pem", tmp_path / "bad.efi"], timeout=60,
                 check=False)  # fmt: skip
    assert result.status != 0


DEBIAN_STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


@pytest.mark.skipif(not DEBIAN_STUB.exists(), reason="Debian's systemd-boot-efi is not installed")
def test_the_real_stub(tmp_path: Path) -> None:
    image = assemble(DEBIAN_STUB.read_bytes(), SECTIONS, sbat=SBAT)
    sound(image, DEBIAN_STUB.read_bytes())
    signed = sign_and_verify(image, tmp_path)
    assert {name: read_sections(signed)[name] for name in SECTIONS} == SECTIONS
