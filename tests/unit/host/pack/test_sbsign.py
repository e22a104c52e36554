from __future__ import annotations

from pathlib import Path

from machineos.host.pack import sbsign


def test_argv() -> None:
    assert sbsign.argv_sign(
        Path("in.efi"), Path("out.efi"), key=Path("/proc/self/fd/5"), certificate=Path("c.pem")
    ) == [
        "sbsign", "--key", "/proc/self/fd/5", "--cert", "c.pem", "--output", "out.efi", "in.efi",
    ]  # fmt: skip
    assert sbsign.argv_verify(Path("a.efi"), certificate=Path("c.pem")) == [
        "sbverify", "--cert", "c.pem", "a.efi",
    ]  # fmt: skip


def test_good_needs_status_and_sentence() -> None:
    good = "Signature verification OK\n"
    warning = "warning: data remaining[1000 vs 1200]: gaps between PE/COFF sections?\n"
    assert sbsign.parse_verify(0, good, "").good
    assert sbsign.parse_verify(0, good, warning).good
    assert not sbsign.parse_verify(1, good, "").good
    assert not sbsign.parse_verify(0, "", "").good
    assert not sbsign.parse_verify(0, "no Signature verification OK\n", "").good


def test_reasons() -> None:
    unsigned = sbsign.parse_verify(1, "", "No signature table present\n")
    assert unsigned.reason == "No signature table present"
    failed = sbsign.parse_verify(1, "Signature verification failed\n", "")
    assert failed.reason == "Signature verification failed"
    assert sbsign.parse_verify(7, "", "").reason == "exit status 7"
