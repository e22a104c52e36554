"""``trust launch``: an appliance as a virtual machine, provisioned, installed, ready to start."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machineos.cli import app
from machineos.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.manifest.install import Install
    from machineos.trust.keyset import Keyset, Project

# What a guest calls the host it runs on, with QEMU's user network.
_GUEST_VIEW = ("10.0.2.2", "127.0.0.1")


@click.command("launch")
@click.argument("name")
@click.argument("url")
@click.option("--project", "project_name", required=True, help="keyset:project")
@click.option("--serial", "--uuid", default="", help="Serial number; a new identity without one.")
@click.option("--disk", default="20GiB", show_default=True, help="Size of the disk.")
@click.option("--memory", default=2048, show_default=True, help="Memory in MiB.")
@click.option("--cpus", default=2, show_default=True, help="Processors.")
@click.option("--skip-install", is_flag=True, help="Only provision the TPM.")
@click.option(
    "--variant",
    type=click.Choice(["ordinary", "debug-console"]),
    default="ordinary",
    help="debug-console: media of the variant for tests.",
)
@click.option("--plain-http", is_flag=True, help="Let the guest speak HTTP to the registry.")
@click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the passphrase of the keyset.",
)
@click.option("--type", "kind", type=click.Choice(["kvm"]), default="kvm", help="Provider.")
@app.json_option
def launch(
    *,
    name: str,
    url: str,
    project_name: str,
    serial: str,
    disk: str,
    memory: int,
    cpus: int,
    skip_install: bool,
    variant: str,
    plain_http: bool,
    passphrase_file: Path | None,
    kind: str,  # noqa: ARG001 (the only provider)
    as_json: bool,
) -> None:
    """Create machine NAME, provision its TPM, install it from URL.

    URL is host:port/path:tag, as the guest sees the host (10.0.2.2 is this machine), or
    oci:DIR:path:tag, which goes onto the install medium. Host ports are forwarded to the ports
    that the manifest publishes; `machine info NAME` shows them.

    \b
    Examples:
      trust launch --project snakeoil:default vm1 10.0.2.2:5000/machine/install:1.0.0
      trust launch --project snakeoil:default vm1 oci:registry:machine/install:1.0.0
      machine start vm1
    """  # fmt: skip
    from machineos.cli.machine import machine_store
    from machineos.cli.mosb_os import read_passphrase
    from machineos.core.clock import SystemClock
    from machineos.core.size import parse_size
    from machineos.trust.keyset import add_sudi, find_project
    from machineos.vm import launch as steps
    from machineos.vm.ports import is_free, ports_from_manifest

    clock = SystemClock()
    started = clock.monotonic()
    passphrase = read_passphrase(passphrase_file)

    def say(text: str) -> None:
        click.echo(f"[{clock.monotonic() - started:6.1f} s] {text}", err=True)

    keyset, project = find_project(app.home().keysets, project_name)
    store = machine_store()
    steps.check_new(store, name)
    say(f"verifying {url}")
    install = verified_install(url, keyset, project, plain_http=plain_http)
    sudi = (
        project.sudi(serial)
        if serial and serial in {one.serial for one in project.list_sudis()}
        else add_sudi(project, serial or None, clock=clock, passphrase=passphrase)
    )
    published = [
        (port.protocol, port.host)
        for target in install.targets
        for port in target.network.ports or ()
    ]
    try:
        hardware = steps.Hardware(
            serial=sudi.serial, uefi_vars=uefi_variables(keyset), disk=parse_size(disk),
            memory=memory, cpus=cpus, ports=ports_from_manifest(published, is_free),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"--disk: {error}") from error
    with media_for(url, keyset, project, variant, passphrase_file, plain_http, say) as media:
        with identity_disk(sudi.pair.cert_path, sudi.pair.key_path, passphrase_file) as small:
            say(f"provisioning {sudi.serial}")
            medium = steps.Medium(
                media["provision"], (small,), steps.PROVISIONED, steps.PROVISION_TIMEOUT
            )
            definition = steps.define(name, hardware, medium=medium)
            steps.run_medium(store, definition, medium, clock, watch=say)
        if not skip_install:
            say("installing")
            extra = (media["url"],) if "url" in media else ()
            medium = steps.Medium(media["install"], extra, steps.INSTALLED, steps.INSTALL_TIMEOUT)
            definition = steps.define(name, hardware, medium=medium)
            steps.run_medium(store, definition, medium, clock, watch=say)
    final = steps.finish(store, steps.define(name, hardware, medium=None))
    forwards = [
        {"protocol": p.protocol, "host": p.host.port, "guest": p.guest.port}
        for nic in final.config.nics for p in nic.ports
    ]  # fmt: skip
    if as_json:
        app.show_json({"name": name, "serial": sudi.serial, "ports": forwards})
        return
    say(f"machine {name} is installed; machine start {name} starts it")
    for one in forwards:
        click.echo(f"127.0.0.1:{one['host']} -> {one['guest']}/{one['protocol']}")


def verified_install(url: str, keyset: Keyset, project: Project, *, plain_http: bool) -> Install:
    """Return the manifest at ``url``, verified from here, before any machine is made for it."""
    from machineos.core.clock import SystemClock
    from machineos.manifest.verify import fetch_verified
    from machineos.oci.layout import LayoutRegistry
    from machineos.oci.reference import Reference
    from machineos.oci.repository import Registry

    registry: Registry
    if url.startswith("oci:"):
        folder, _, rest = url.removeprefix("oci:").partition(":")
        path, _, tag = rest.rpartition(":")
        registry = LayoutRegistry(Path(folder))
    else:
        from machineos.oci.auth import Credentials, default_auth_paths
        from machineos.oci.registry import HttpRegistry

        reference = Reference.parse(url.removeprefix("docker://"))
        host = reference.host
        if host.partition(":")[0] == _GUEST_VIEW[0]:
            host = host.replace(*_GUEST_VIEW)
        environ = app.environment()
        credentials = Credentials(default_auth_paths(environ), environ)
        registry = HttpRegistry(host, plain_http=plain_http, credentials=credentials)
        path, tag = reference.name, reference.tag or "latest"
    if not path or not tag:
        raise UsageError(f"{url!r} does not name path:tag")
    fetched = fetch_verified(
        registry.repository(path),
        tag,
        ca_pem=keyset.key("manifest-ca").certificate_pem(),
        at=SystemClock().now(),
        product=project.uuid,
    )
    return fetched.verified.install


def uefi_variables(keyset: Keyset) -> Path:
    """Return the variable store with the keyset's keys enrolled, making it when it is not there."""
    from machineos.host.uefivars import Enrolled
    from machineos.vm.uefi import prepare_uefi

    path = keyset.bootkit / "ovmf" / "ovmf-vars.fd"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = []
        for role in ("uefi-pk", "uefi-kek", "uefi-db"):
            pair = keyset.key(role)
            if pair.guid is None:
                raise MissingError(f"keyset {keyset.name}: {role} has no guid")
            keys.append(Enrolled(pair.guid, pair.cert_path))
        prepare_uefi(path, pk=keys[0], kek=keys[1], db=keys[2])
    return path


@contextmanager
def media_for(
    url: str,
    keyset: Keyset,
    project: Project,
    variant: str,
    passphrase_file: Path | None,
    plain_http: bool,
    say: Callable[[str], None],
) -> Iterator[dict[str, Path]]:
    """Yield the media by name: for an OCI layout a medium that holds it, else the keyset's own and
    a small disk with the URL."""
    from machineos.cli.mosb_os import read_passphrase
    from machineos.core.clock import SystemClock
    from machineos.host import fat
    from machineos.image.appliance import DEFAULT_EPOCH
    from machineos.image.installmedia import build_media

    local = url.startswith("oci:")
    with tempfile.TemporaryDirectory(prefix="machineos-launch-") as name:
        folder = Path(name)
        media = build_media(
            keyset, project, output=folder, variant=variant,
            passphrase=read_passphrase(passphrase_file), manifest=url if local else "",
            clock=SystemClock(), say=say,
        )  # fmt: skip
        if not local:
            text = folder / "url.txt"
            text.write_text(url + (" plain-http" if plain_http else "") + "\n")
            media["url"] = folder / "install.vfat"
            fat.make_image(
                media["url"], label="inst-data", files={"url.txt": text}, epoch=DEFAULT_EPOCH,
                size=20 << 20,
            )  # fmt: skip
        yield media


@contextmanager
def identity_disk(certificate: Path, key: Path, passphrase_file: Path | None) -> Iterator[Path]:
    """Yield the small disk with the device identity; it holds a private key, so it is 0600 in a
    folder of our own and gone afterwards."""
    import os

    from machineos.cli.mosb_os import read_passphrase
    from machineos.core.files import read_bounded
    from machineos.host import fat
    from machineos.image.appliance import DEFAULT_EPOCH
    from machineos.trust.x509 import key_pem, load_key

    with tempfile.TemporaryDirectory(prefix="machineos-identity-", dir="/dev/shm") as name:
        plain, image = Path(name) / "privkey.pem", Path(name) / "sudi.vfat"
        pem = read_bounded(key, 1 << 16)
        loaded = load_key(pem, read_passphrase(passphrase_file), what=str(key))
        for path, data in ((plain, key_pem(loaded, None)), (image, b"")):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(data)
        fat.make_image(
            image, label="trust-data", files={"cert.pem": certificate, "privkey.pem": plain},
            epoch=DEFAULT_EPOCH, size=20 << 20,
        )  # fmt: skip
        yield image
