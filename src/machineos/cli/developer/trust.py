"""The command ``trust``: keysets, projects, device identities, EFI signatures, PCR 7.

No decisions here: each command reads its arguments, calls ``machineos.trust`` and prints. Modules
that need cryptography are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from machineos.cli import app, options
from machineos.cli.developer import keysets, names
from machineos.cli.developer.trust_launch import launch
from machineos.cli.group import group
from machineos.core.printable import counted
from machineos.errors import MissingError, UsageError

if TYPE_CHECKING:
    from machineos.core.secret import Secret
    from machineos.trust.keys.keyset import KeyPair, Keyset

_FILE = click.Path(path_type=Path)
_EXIT_CODES = """
\b
Exit codes: 0 good, 2 usage, 3 a damaged file, 4 a signature does not verify,
5 it does not exist, 6 it exists already, 8 a program failed, 130 interrupted.
"""
_HELP = f"""Keys and signatures of your products.

A keyset holds every key of one maker: for manifests, for the identities of machines, for Secure
Boot, and for the TPM's policies. A project is one product in it.

\b
Examples:
  trust keyset add acme --org "Acme Inc"
  trust project add acme thermostat
  trust sudi add acme thermostat SN0001
  trust keyset show acme manifest:thermostat cert.pem --path
{_EXIT_CODES}"""


def main() -> NoReturn:
    """Run ``trust``."""
    app.main(trust)


@group("trust", _HELP)
def trust() -> None:
    """Hold the subcommands; the help text is above."""


# --- keyset ---------------------------------------------------------------------------------------


@trust.group()
def keyset() -> None:
    """List, make and show keysets."""


@keyset.command("list")
@options.as_json
def keyset_list(as_json: bool) -> None:
    """List the keysets of this user."""
    from machineos.trust.keys.keyset import list_keysets

    found = list_keysets(app.home().keysets)
    if as_json:
        app.show_json([{"name": one.name, "path": str(one.root)} for one in found])
        return
    for one in found:
        click.echo(one.name)


@keyset.command("add")
@click.argument("name")
@click.option(
    "--org",
    "--Org",
    "--organization",
    "organizations",
    multiple=True,
    help="Organization to put into the certificates; may be repeated.",
)
@click.option("--ask-passphrase", is_flag=True, help="Ask for a passphrase for all private keys.")
@options.passphrase_file
@options.as_json
def keyset_add(
    name: str,
    organizations: tuple[str, ...],
    ask_passphrase: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make the keyset NAME: all its keys and certificates, and the project "default".

    \b
    Examples:
      trust keyset add acme --org "Acme Inc"
      trust keyset add acme --ask-passphrase
    """
    from machineos.core.clock import SystemClock
    from machineos.trust.keys.keyset import SystemRandomness, create_keyset

    if ask_passphrase and passphrase_file is not None:
        raise UsageError("--ask-passphrase and --passphrase-file exclude each other")
    passphrase = _prompt(new=True) if ask_passphrase else app.read_passphrase(passphrase_file)
    made = create_keyset(
        app.home().keysets,
        name,
        organization=organizations,
        passphrase=passphrase,
        clock=SystemClock(),
        random=SystemRandomness(),
        progress=None if as_json else lambda role: click.echo(f"making {role}", err=True),
    )
    if as_json:
        app.show_json({"name": made.name, "path": str(made.root)})
    else:
        click.echo(f"keyset {made.name}: {made.root}")


@keyset.command("upgrade")
@click.argument("name", shell_complete=names.keysets)
@options.passphrase_file
@options.as_json
def keyset_upgrade(name: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Issue what a keyset of the predecessor lacks, and close its private keys to others.

    Its keys and certificates stay as they are. What it lacks is manifest-ca/uki-cross.pem, with
    which the production key vouches for the manifest CA; the bootkit is built with it.

    \b
    Example:
      trust keyset upgrade snakeoil
    """
    from machineos.core.clock import SystemClock
    from machineos.trust.keys.keyset import Keyset
    from machineos.trust.keys.upgrade import close_keys, issue_missing

    opened = Keyset.open(app.home().keysets, name)
    passphrase = _passphrase_for(opened.key("uki-production"), passphrase_file)
    issued = issue_missing(opened, clock=SystemClock(), passphrase=passphrase)
    closed = close_keys(opened)
    if as_json:
        made = {"issued": [str(path) for path in issued], "closed": [str(path) for path in closed]}
        app.show_json({"name": opened.name, "path": str(opened.root), **made})
        return
    for path in issued:
        click.echo(f"issued {path}")
    if closed:
        click.echo(f"closed {counted(len(closed), 'private key')} to others")
    if not issued and not closed:
        click.echo(f"keyset {opened.name} lacks nothing")


@keyset.command("show")
@click.argument("name", shell_complete=names.keysets)
@click.argument("key", required=False, shell_complete=names.keys)
@click.argument("item", required=False, shell_complete=names.items)
@click.option("--path", "what", flag_value="path", help="Print paths.")
@click.option("--value", "what", flag_value="value", help="Print the content of the item.")
@options.as_json
def keyset_show(
    name: str, key: str | None, item: str | None, what: str | None, as_json: bool
) -> None:
    """Show a keyset, one of its keys, or one file of a key.

    KEY is the name of a key, or manifest:PROJECT. ITEM is a file of it: cert.pem, privkey.pem,
    guid, uuid.

    \b
    Examples:
      trust keyset show acme
      trust keyset show acme uefi-db guid
      trust keyset show acme manifest:default cert.pem --path
    """

    opened = keysets.open_keyset(name)
    if key is None:
        _show_keyset(opened, paths=what == "path", as_json=as_json)
        return
    folder = _key_folder(opened, key)
    files = {
        entry.name: entry
        for entry in sorted(folder.iterdir())
        if entry.is_file() and not entry.name.startswith(".")
    }
    if item is None:
        if what == "value":
            raise UsageError("--value needs an item", hint=f"one of: {', '.join(files)}")
        _show_files(files, paths=what == "path", as_json=as_json)
        return
    if item not in files:
        raise MissingError(f"{key} has no {item}", hint=f"it has: {', '.join(files)}")
    _show_item(files[item], path=what == "path", as_json=as_json)


# --- project --------------------------------------------------------------------------------------


@trust.group()
def project() -> None:
    """List and make projects: the products of a keyset."""


@project.command("list")
@click.argument("keyset_name", metavar="KEYSET", shell_complete=names.keysets)
@options.as_json
def project_list(keyset_name: str, as_json: bool) -> None:
    """List the projects of KEYSET."""
    from machineos.cli.developer.keyset_shape import project_json

    found = keysets.open_keyset(keyset_name).list_projects()
    if as_json:
        app.show_json([project_json(one) for one in found])
        return
    for one in found:
        click.echo(one.name)


@project.command("add")
@click.argument("keyset_name", metavar="KEYSET", shell_complete=names.keysets)
@click.argument("name", metavar="PROJECT")
@options.passphrase_file
@options.as_json
def project_add(keyset_name: str, name: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Make PROJECT in KEYSET: a product UUID and the key that signs the product's manifests."""
    from machineos.cli.developer.keyset_shape import project_json
    from machineos.core.clock import SystemClock
    from machineos.trust.keys.keyset import SystemRandomness, add_project

    opened = keysets.open_keyset(keyset_name)
    passphrase = _passphrase_for(opened.key("manifest-ca"), passphrase_file)
    made = add_project(
        opened, name, clock=SystemClock(), random=SystemRandomness(), passphrase=passphrase
    )
    if as_json:
        app.show_json(project_json(made))
    else:
        click.echo(f"project {made.name}, product {made.uuid}: {made.root}")


# --- sudi -----------------------------------------------------------------------------------------


@trust.group()
def sudi() -> None:
    """List and make the identities of machines (SUDI)."""


@sudi.command("list")
@click.argument("keyset_name", metavar="KEYSET", shell_complete=names.keysets)
@click.argument("project_name", metavar="PROJECT", shell_complete=names.projects)
@options.as_json
def sudi_list(keyset_name: str, project_name: str, as_json: bool) -> None:
    """List the machines of PROJECT in KEYSET."""
    from machineos.cli.developer.keyset_shape import sudi_json

    found = keysets.open_keyset(keyset_name).project(project_name).list_sudis()
    if as_json:
        app.show_json([sudi_json(one) for one in found])
        return
    for one in found:
        click.echo(one.serial)


@sudi.command("add")
@click.argument("keyset_name", metavar="KEYSET", shell_complete=names.keysets)
@click.argument("project_name", metavar="PROJECT", shell_complete=names.projects)
@click.argument("serial", required=False)
@options.passphrase_file
@options.as_json
def sudi_add(
    keyset_name: str,
    project_name: str,
    serial: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make the identity of a machine. SERIAL is a random UUID unless you give one.

    \b
    Examples:
      trust sudi add acme default
      trust sudi add acme default SN0001
    """
    from machineos.cli.developer.keyset_shape import sudi_json
    from machineos.core.clock import SystemClock
    from machineos.trust.keys.keyset import SystemRandomness, add_sudi

    opened = keysets.open_keyset(keyset_name)
    owner = opened.project(project_name)
    passphrase = _passphrase_for(opened.key("sudi-ca"), passphrase_file)
    made = add_sudi(
        owner, serial, clock=SystemClock(), random=SystemRandomness(), passphrase=passphrase
    )
    if as_json:
        app.show_json(sudi_json(made))
    else:
        click.echo(f"machine {made.serial}: {made.pair.cert_path.parent}")


# --- sign, verify, compute-pcr7 -------------------------------------------------------------------


@trust.group()
def sign() -> None:
    """Sign EFI binaries."""


@sign.command("efi")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="Private key (PEM).")
@click.option("--cert", type=_FILE, required=True, help="Its certificate (PEM).")
@click.option("--output", type=_FILE, required=True, help="Where the signed binary goes.")
@options.passphrase_file
def sign_efi(file: Path, key: Path, cert: Path, output: Path, passphrase_file: Path | None) -> None:
    """Sign the EFI binary FILE (Authenticode, for Secure Boot).

    \b
    Example:
      D=$(dirname $(trust keyset show acme uefi-db cert.pem --path))
      trust sign efi shim.efi --key $D/privkey.pem --cert $D/cert.pem --output shim.signed.efi
    """
    from machineos.trust.keys import efi
    from machineos.trust.keys.keyset import KeyPair

    pair = KeyPair(cert, key)
    passphrase = _passphrase_for(pair, passphrase_file)
    efi.sign_efi(file, output, pair, passphrase=passphrase)
    click.echo(f"Signed {output}")


@trust.group()
def verify() -> None:
    """Verify EFI binaries."""


@verify.command("efi")
@click.argument("file", type=_FILE)
@click.option("--cert", type=_FILE, required=True, help="Certificate (PEM) to check against.")
def verify_efi(file: Path, cert: Path) -> None:
    """Check that the EFI binary FILE is signed by the key of a certificate."""
    from machineos.trust.keys import efi

    efi.verify_efi(file, cert)
    click.echo("Signature verification OK")


@trust.command("compute-pcr7")
@click.argument("keyset_name", metavar="KEYSET", shell_complete=names.keysets)
@click.option(
    "--shim",
    type=click.Choice(["debian", "predecessor"]),
    default="debian",
    show_default=True,
    help="Whose shim boots: Debian 13's, or the predecessor's with its vendor database.",
)
@click.option("--events", is_flag=True, help="Also show each event that is measured.")
@options.as_json
def compute_pcr7(keyset_name: str, shim: str, events: bool, as_json: bool) -> None:
    """Print the PCR 7 (SHA-256) that a machine of KEYSET has when its kernel image runs."""
    from machineos.cli.developer import keyset_shape
    from machineos.trust.keys.enrolled import certs_of
    from machineos.trust.measure import pcr

    opened = keysets.open_keyset(keyset_name)
    report: dict[str, tuple[str, list[dict[str, str]]]] = {}
    for role in ("uki-production", "uki-limited", "uki-tpm"):
        certs, uki = certs_of(opened, role)
        measured = pcr.boot_events(certs, uki, predecessor=shim == "predecessor")
        shown = [{"name": event.name, "sha256": event.digest.hex()} for event in measured]
        report[role] = (pcr.fold(measured).hex(), shown if events else [])
    if as_json:
        app.show_json(keyset_shape.pcr7_json(report, events=events))
        return
    for role, (value, shown) in report.items():
        click.echo(f"{role}:{value}")
        for event in shown:
            click.echo(f"  {event['sha256']}  {event['name']}")


trust.add_command(
    click.Command(
        "computePCR7",
        callback=compute_pcr7.callback,
        params=compute_pcr7.params,
        help=compute_pcr7.help,
        hidden=True,  # the predecessor's spelling
    )
)


trust.add_command(launch)


# --- what the commands share ----------------------------------------------------------------------


def _passphrase_for(pair: KeyPair, path: Path | None) -> Secret | None:
    if path is None and pair.is_protected() and sys.stdin.isatty():
        return _prompt(new=False)
    return app.read_passphrase(path)


def _prompt(*, new: bool) -> Secret:
    from machineos.core.secret import Secret

    text = click.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return Secret(str(text).encode())


def _key_folder(opened: Keyset, key: str) -> Path:
    kind, colon, name = key.partition(":")
    if kind == "manifest":
        if not colon or not name:
            raise UsageError("'manifest' alone is no key", hint="write manifest:PROJECT")
        return opened.project(name).root
    return opened.key(key).cert_path.parent


def _show_keyset(opened: Keyset, *, paths: bool, as_json: bool) -> None:
    from machineos.cli.developer.keyset_shape import KEY_COLUMNS, key_row, keyset_json
    from machineos.trust.keys.contents import ROLES

    projects = opened.list_projects()
    keys = {role: opened.key(role) for role in ROLES}
    if as_json:
        app.show_json(keyset_json(opened.name, opened.root, keys, projects))
        return
    rows = [*keys.items(), *((f"manifest:{one.name}", one.pair) for one in projects)]
    if paths:
        for _, pair in rows:
            click.echo(str(pair.cert_path.parent))
        return
    app.show_table(KEY_COLUMNS, [key_row(label, pair.certificate()) for label, pair in rows])


def _show_files(files: dict[str, Path], *, paths: bool, as_json: bool) -> None:
    if as_json:
        app.show_json({name: str(path) for name, path in files.items()})
        return
    for name, path in files.items():
        click.echo(str(path) if paths else name)


def _show_item(file: Path, *, path: bool, as_json: bool) -> None:
    from machineos.core.files import read_named

    if path:
        click.echo(str(file))
        return
    text = read_named(file, 1 << 20).decode("utf-8", "replace")
    if as_json:
        app.show_json({"path": str(file), "value": text})
    else:
        click.echo(text.rstrip("\n"))
