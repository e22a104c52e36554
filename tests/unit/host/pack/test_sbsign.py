from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command, Result
from machineos.host.pack import sbsign
from machineos.host.pack.sbsign import Outcome


def said(status: int, stdout: str, stderr: str) -> Result:
    return Result(("sbverify",), status, stdout.encode(), stderr.encode())


def test_the_commands() -> None:
    assert sbsign.sign_command(
        Path("in.efi"),
        Path("out.efi"),
        key=Path("/proc/self/fd/5"),
        certificate=Path("c.pem"),
        pass_fds=[5],
    ) == Command(
        ("sbsign", "--key", "/proc/self/fd/5", "--cert", "c.pem", "--output", "out.efi", "in.efi"),
        120.0,
        pass_fds=(5,),
    )
    assert sbsign.verify_command(Path("a.efi"), certificate=Path("c.pem")) == Command(
        ("sbverify", "--cert", "c.pem", "a.efi"), 120.0, success=None
    )


def test_good_needs_status_and_sentence() -> None:
    good = "Signature verification OK\n"
    warning = "warning: data remaining[1000 vs 1200]: gaps between PE/COFF sections?\n"
    assert sbsign.parse_verify(said(0, good, "")) == Outcome(good=True)
    assert sbsign.parse_verify(said(0, good, warning)) == Outcome(good=True)
    assert not sbsign.parse_verify(said(1, good, "")).good
    assert not sbsign.parse_verify(said(0, "", "")).good
    assert not sbsign.parse_verify(said(0, "", good)).good
    assert not sbsign.parse_verify(said(0, "no Signature verification OK\n", "")).good


def test_reasons() -> None:
    unsigned = sbsign.parse_verify(said(1, "", "No signature table present\n"))
    assert unsigned.reason == "No signature table present"
    failed = sbsign.parse_verify(said(1, "Signature verification failed\n", ""))
    assert failed.reason == "Signature verification failed"
    assert sbsign.parse_verify(said(7, "", "")).reason == "exit status 7"
    many = sbsign.parse_verify(said(1, "d\n", "a\n\n b \nc\n"))
    assert many.reason == "b; c; d"
    assert len(sbsign.parse_verify(said(1, "x" * 500, "")).reason) == 300
