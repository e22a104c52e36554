from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes.randomness import FixedRandomness
from machineos.cli.developer.trust import trust
from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.core.secret import Secret
from machineos.errors import ConflictError, MissingError, SignatureError, UsageError
from machineos.trust.keys.contents import ROLES
from machineos.trust.keys.keyset import create_keyset
from vectors.pe import efi_binary
from waiting import PATIENCE

START = "from machineos.cli.developer.trust import main; main()"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    add_keyset(root, "acme")
    return root


def add_keyset(root: Path, name: str, passphrase: Secret | None = None) -> None:
    """What ``keyset add`` does, without making RSA keys."""
    create_keyset(
        root / "machine/trust/keys",
        name,
        organization="Acme",
        passphrase=passphrase,
        clock=SystemClock(),
        random=FixedRandomness(),
    )


def call(data: Path, *args: str, stdin: str | None = None) -> Result:
    runner = CliRunner(env={"XDG_DATA_HOME": str(data)})
    return runner.invoke(trust, list(args), input=stdin, standalone_mode=False)


def good(data: Path, *args: str) -> str:
    result = call(data, *args)
    assert result.exception is None, result.exception
    return result.stdout


def test_help_is_quick_because_it_imports_no_cryptography() -> None:
    code = (
        "import sys\nfrom machineos.cli.developer.trust import trust\n"
        "trust(['--help'], standalone_mode=False)\n"
        "print('LOADED', [m for m in ('cryptography', 'rich', 'yaml') if m in sys.modules])"
    )
    text = run.run([sys.executable, "-c", code], timeout=PATIENCE).text
    assert "Examples:" in text
    assert text.endswith("LOADED []")


@pytest.mark.parametrize(
    "command",
    [
        ["keyset"], ["keyset", "list"], ["keyset", "add"], ["keyset", "show"],
        ["keyset", "upgrade"], ["project", "list"],
        ["project", "add"], ["sudi", "list"], ["sudi", "add"], ["sign", "efi"], ["verify", "efi"],
        ["compute-pcr7"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_command_has_help(command: list[str], data: Path) -> None:
    assert "Usage:" in good(data, *command, "--help")


def test_a_keyset_of_the_predecessor(tmp_path: Path) -> None:
    """What it lacks is said with the command that makes it, and that others can read its keys."""
    add_keyset(tmp_path, "old")
    root = tmp_path / "machine/trust/keys/old"
    (root / "manifest-ca/uki-cross.pem").unlink()
    (root / "uefi-db/privkey.pem").chmod(0o644)
    told = call(tmp_path, "keyset", "show", "old").stderr
    assert "others on this machine may read 1 private key of keyset old" in told
    assert "trust keyset upgrade old" in told
    assert "keyset show" not in good(tmp_path, "keyset", "show", "old", "--json")
    made = json.loads(good(tmp_path, "keyset", "upgrade", "old", "--json"))
    assert made["issued"] == [f"{root}/manifest-ca/uki-cross.pem"]
    assert made["closed"] == [f"{root}/uefi-db/privkey.pem"]
    assert good(tmp_path, "keyset", "upgrade", "old") == "keyset old lacks nothing\n"
    assert call(tmp_path, "keyset", "show", "old").stderr == ""


@pytest.mark.parametrize("flag", ["--org", "--Org", "--organization"])
def test_keyset_add(flag: str, tmp_path: Path) -> None:
    if flag == "--org":
        secret = tmp_path / "secret"
        secret.write_text("open sesame\n")
        add = ("keyset", "add", "k", flag, "A", "--passphrase-file", str(secret), "--json")
        shown = json.loads(good(tmp_path, *add))
        assert Path(shown["path"]) == tmp_path / "machine/trust/keys/k"
        key = tmp_path / "machine/trust/keys/k/uefi-db/privkey.pem"
        assert key.read_text().startswith("-----BEGIN ENCRYPTED")
        assert good(tmp_path, "project", "list", "k") == "default\n"
        assert "O=A" in good(tmp_path, "keyset", "show", "k")
    else:
        # the other spellings are read: the refusal is about the name, not the flag
        assert isinstance(call(tmp_path, "keyset", "add", "a/b", flag, "A").exception, UsageError)


def test_lists(data: Path) -> None:
    assert good(data, "keyset", "list") == "acme\n"
    assert json.loads(good(data, "keyset", "list", "--json"))[0]["name"] == "acme"
    projects = json.loads(good(data, "project", "list", "acme", "--json"))
    assert [one["name"] for one in projects] == ["default"]
    assert good(data, "sudi", "list", "acme", "default") == ""
    assert good(Path("/nonexistent"), "keyset", "list") == ""


def test_show(data: Path) -> None:
    root = data / "machine/trust/keys/acme"
    table = good(data, "keyset", "show", "acme")
    assert [line.split()[0] for line in table.splitlines()] == ["KEY", *ROLES, "manifest:default"]
    assert str(root / "uefi-db") in good(data, "keyset", "show", "acme", "--path").splitlines()
    shown = json.loads(good(data, "keyset", "show", "acme", "--json"))
    assert set(shown["keys"]) == set(ROLES)
    assert shown["keys"]["uefi-db"]["guid"] == (root / "uefi-db/guid").read_text()
    names = good(data, "keyset", "show", "acme", "uefi-db").split()
    assert names == ["cert.pem", "guid", "privkey.pem"]
    assert good(data, "keyset", "show", "acme", "uefi-db", "guid").strip() == (
        (root / "uefi-db/guid").read_text()
    )
    value = good(data, "keyset", "show", "acme", "uefi-db", "cert.pem", "--value")
    assert value == (root / "uefi-db/cert.pem").read_text()
    path = good(data, "keyset", "show", "acme", "manifest:default", "cert.pem", "--path")
    assert path.strip() == str(root / "manifest/default/cert.pem")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("acme", "manifest"), UsageError),
        (("acme", "manifest:"), UsageError),
        (("acme", "manifest:nine"), MissingError),
        (("acme", "manifest:../uefi-db"), UsageError),
        (("acme", "nine"), MissingError),
        (("acme", "uefi-db", "../uefi-pk/guid"), MissingError),
        (("acme", "uefi-db", "--value"), UsageError),
        (("nine",), MissingError),
        (("../acme",), UsageError),
    ],
)
def test_show_refuses(args: tuple[str, ...], error: type[Exception], data: Path) -> None:
    assert isinstance(call(data, "keyset", "show", *args).exception, error)


def test_projects_and_machines(data: Path) -> None:
    made = json.loads(good(data, "project", "add", "acme", "thermo", "--json"))
    assert made["subject"] == f"CN=manifest PRODUCT:{made['uuid']}"
    assert "SN0001" in good(data, "sudi", "add", "acme", "thermo", "SN0001")
    random = json.loads(good(data, "sudi", "add", "acme", "thermo", "--json"))
    found = good(data, "sudi", "list", "acme", "thermo").split()
    assert sorted(found) == sorted(["SN0001", random["serial"]])
    again = call(data, "sudi", "add", "acme", "thermo", "SN0001").exception
    assert isinstance(again, ConflictError)


def test_compute_pcr7(data: Path) -> None:
    lines = good(data, "compute-pcr7", "acme").splitlines()
    assert [line.split(":")[0] for line in lines] == ["uki-production", "uki-limited", "uki-tpm"]
    assert {len(line.split(":")[1]) for line in lines} == {64}
    assert good(data, "computePCR7", "acme").splitlines() == lines
    assert good(data, "compute-pcr7", "acme", "--shim", "predecessor").splitlines() != lines
    short = json.loads(good(data, "compute-pcr7", "acme", "--json"))
    assert {tuple(entry) for entry in short.values()} == {("pcr7",)}
    shown = json.loads(good(data, "compute-pcr7", "acme", "--json", "--events"))
    assert f"uki-tpm:{shown['uki-tpm']['pcr7']}" == lines[2]
    assert len(good(data, "compute-pcr7", "acme", "--events").splitlines()) == 3 * 10


@pytest.mark.tool("sbsign")
def test_sign_and_verify(data: Path, tmp_path: Path) -> None:
    folder = data / "machine/trust/keys/acme/uefi-db"
    source, target = tmp_path / "a.efi", tmp_path / "b.efi"
    source.write_bytes(efi_binary())
    key, cert = str(folder / "privkey.pem"), str(folder / "cert.pem")
    args = ("sign", "efi", str(source), "--key", key, "--cert", cert, "--output", str(target))
    assert good(data, *args) == f"Signed {target}\n"
    assert good(data, "verify", "efi", str(target), "--cert", cert) == (
        "Signature verification OK\n"
    )
    refused = call(data, "verify", "efi", str(source), "--cert", cert).exception
    assert isinstance(refused, SignatureError)


def test_passphrase_from_a_file_and_from_stdin(tmp_path: Path) -> None:
    add_keyset(tmp_path, "k", Secret(b"open sesame"))
    assert isinstance(call(tmp_path, "project", "add", "k", "p").exception, UsageError)
    env = {"XDG_DATA_HOME": str(tmp_path)}
    done = run.run(
        [sys.executable, "-c", START, "project", "add", "k", "p", "--passphrase-file", "-"],
        input=b"open sesame", env=env, timeout=PATIENCE,
    )  # fmt: skip
    assert "project p" in done.text
    reader, writer = os.pipe()
    os.write(writer, b"open sesame")
    os.close(writer)
    try:
        run.run(
            [sys.executable, "-c", START, "sudi", "add", "k", "p", "SN1",
             "--passphrase-file", f"/dev/fd/{reader}"],
            env=env, pass_fds=(reader,), timeout=PATIENCE,
        )  # fmt: skip
    finally:
        os.close(reader)
    both = call(tmp_path, "keyset", "add", "x", "--ask-passphrase", "--passphrase-file", "f")
    assert isinstance(both.exception, UsageError)


def test_prompt(tmp_path: Path) -> None:
    asked = call(tmp_path, "keyset", "add", "k", "--ask-passphrase", stdin="a b\na b\n")
    assert asked.exception is None
    assert "a b" not in asked.output
    key = tmp_path / "machine/trust/keys/k/uefi-db/privkey.pem"
    assert key.read_text().startswith("-----BEGIN ENCRYPTED")


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["keyset", "list"], 0),
        (["keyset", "show", "nine"], 5),
        (["keyset", "add", "acme"], 6),
        (["keyset", "add", "a/b"], 2),
        (["keyset", "nine"], 2),
        (["verify", "efi", __file__, "--cert", __file__], 4),
    ],
)
def test_exit_codes(args: list[str], status: int, data: Path) -> None:
    result = run.run(
        [sys.executable, "-c", START, *args],
        env={"XDG_DATA_HOME": str(data)}, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert result.status == status
    assert b"Traceback" not in result.stderr


def test_errors_as_json(data: Path) -> None:
    result = run.run(
        [sys.executable, "-c", START, "keyset", "show", "nine", "--json"],
        env={"XDG_DATA_HOME": str(data)}, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert json.loads(result.stderr)["error"] == "MissingError"
