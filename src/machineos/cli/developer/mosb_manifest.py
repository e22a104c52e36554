"""``mosb manifest``: publish, verify and show signed manifests, and print the schema.

Only parses arguments, opens what they name, and prints; the decisions are in ``build.publish`` and
``document``. Imports are inside the commands: ``verify`` must answer in 0.35 s.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from machineos.cli import app, options
from machineos.cli.developer import inspecting, keysets, progress
from machineos.cli.developer import manifest_shape as shape
from machineos.cli.developer.manifest_init import init
from machineos.cli.developer.manifest_lock import Mode, for_publish, lock_options
from machineos.cli.developer.manifest_lock import lock as lock_command
from machineos.cli.developer.manifest_mount import mount, unmount
from machineos.cli.developer.opener import Opener
from machineos.core.printable import counted

if TYPE_CHECKING:
    from machineos.document.model.install import Install
    from machineos.document.verify.images import VerifiedImage
    from machineos.document.verify.published import Fetched


@click.group("manifest")
def manifest() -> None:
    """Publish, verify and show the signed manifest of a product."""


for _command in (init, lock_command, mount, unmount):
    manifest.add_command(_command)


@manifest.command()
@click.argument(
    "file", metavar="manifest.yaml", type=click.Path(path_type=Path), callback=options.input_file
)
@keysets.project("project", help_text="Who signs.")
@shape.place
@click.option(
    "--skip-bootkit",
    "--skip-boot",
    is_flag=True,
    help="Do not add hostfs and bootkit (for updates of services only).",
)
@lock_options
@options.passphrase_file
@click.option(
    "--epoch",
    type=click.IntRange(0, 253402300799),
    envvar="SOURCE_DATE_EPOCH",
    show_envvar=True,
    help="Time in the artifacts, in seconds since 1970 (default: that of the newest image).",
)
@options.as_json
def publish(
    file: Path,
    project: str,
    repo: str,
    name: str,
    reach: options.Reach,
    skip_bootkit: bool,
    lock_mode: Mode | None,
    check_lock: bool,
    passphrase_file: Path | None,
    epoch: int | None,
    as_json: bool,
) -> None:
    """Sign manifest.yaml and publish it with all the images that it names.

    Images go to the repository "mos" next to it; those with tar layers are converted first. hostfs
    and bootkit come from the keyset unless the manifest names its own. Publishing the same again
    changes nothing. digest and size in manifest.yaml are those of the image at its source; a file
    that signed-by names is looked for beside manifest.yaml. Where `mosb manifest lock` wrote a
    manifest.lock, the images are the ones in it, by digest. - is standard input. The manifest is
    signed for cosign, too.

    \b
    Examples:
      mosb manifest publish --project snakeoil:default --repo 127.0.0.1:5000 \\
          --name machine/install:1.0.0 manifest.yaml
      mosb manifest publish --project snakeoil:default --repo oci:registry \\
          --name machine/install:1.0.0 manifest.yaml
    """
    from machineos.build.publish.plan import Publishing, with_defaults
    from machineos.build.publish.publish import Place, Reporting, load_source
    from machineos.build.publish.publish import publish as publish_source
    from machineos.core.clock import SystemClock
    from machineos.core.files import read_named
    from machineos.trust.keys.signer import FileSigner

    source = load_source(file)
    keyset, owner = keysets.open_project(project)
    passphrase = app.read_passphrase(passphrase_file)
    path, tag = shape.split_name(name)
    with progress.shown(plain=as_json) as watch, Opener(reach, watch.say, epoch) as opener:
        defaults = None if skip_bootkit else shape.keyset_defaults(keyset)
        lock, moved = for_publish(
            file,
            with_defaults(source.targets, defaults),
            opener,
            lock_mode or "auto",
            registries=check_lock,
            say=watch.say,
        )
        publishing = Publishing(
            source=source,
            signer=FileSigner.open(owner.pair, passphrase),
            ca_pem=keyset.key("manifest-ca").certificate_pem(),
            at=SystemClock().now(),
            product=owner.uuid,
            open_source=opener.source,
            inspector=inspecting.inspector(watch.say),
            converter=opener,
            defaults=defaults,
            created=None if epoch is None else datetime.fromtimestamp(epoch, UTC),
            lock=lock,
            read_beside=lambda named, limit: read_named(file.parent / named, limit),
        )
        place = Place(opener.registry(repo, writable=True), path, tag)
        published = publish_source(publishing, place, Reporting(watch.say, watch.copied))
    if as_json:
        app.show_json(
            {
                "repository": published.repository,
                "tag": published.tag,
                "digest": str(published.descriptor.digest),
                "sha256": published.verified.sha256,
                "created": published.created.isoformat(),
                "locked": lock is not None,
                "moved": moved,
                "install": _install_json(published.verified.install),
            }
        )
    else:
        app.show(f"published {published.repository}:{tag}")
        app.show(f"  digest   {published.descriptor.digest}")
        _show_targets(published.verified.install)


@manifest.command()
@shape.place
@shape.trust
@click.option(
    "--deep",
    is_flag=True,
    help="Also read every byte: each block by its root hash, and what is inside.",
)
@options.as_json
def verify(
    repo: str,
    name: str,
    reach: options.Reach,
    project: str | None,
    ca: Path | None,
    product: UUID | None,
    deep: bool,
    as_json: bool,
) -> None:
    """Verify a published manifest the way a machine does before it installs it.

    Checks the signature, the publisher's chain to the CA, the product, every rule of the document,
    digest and size of each image, that each layer has a dm-verity root hash signed by the
    publisher, and that its blob is there (with --deep: that its bytes are right).

    \b
    Examples:
      mosb manifest verify --project snakeoil:default --repo oci:registry \\
          --name machine/install:1.0.0
      mosb manifest verify --ca manifest-ca.pem --product UUID --repo 127.0.0.1:5000 \\
          --name machine/install:1.0.0

    \b
    The same signature by hand, with the blobs of index.json (the install document), cert.pem and
    install.json.signed; openssl wants the public key, not the certificate:
      openssl x509 -in CERT -noout -pubkey -out key.pem
      openssl dgst -sha256 -verify key.pem -signature SIGNATURE INSTALL

    \b
    The same with cosign, whose form of the signature is published beside it:
      trust keyset show snakeoil manifest:default cert.pem --value | \\
          openssl x509 -noout -pubkey >manifest.pub
      cosign verify --key manifest.pub --insecure-ignore-tlog 127.0.0.1:5000/machine/install:1.0.0
    """
    from machineos.build.publish.verify import require_beside, verify_images

    with Opener(reach, app.say) as opener:
        registry = opener.registry(repo)
        fetched = shape.fetch(registry, name, shape.believed(project, ca, product, needed=True))
        inspector = inspecting.inspector(app.say) if deep else None
        images = verify_images(registry, fetched.verified, deep=inspector)
        if deep:
            require_beside(
                registry.repository(shape.split_name(name)[0]), fetched.descriptor.digest
            )
    if as_json:
        app.show_json({**_verdict(fetched), "images": [_image_json(image) for image in images]})
        return
    verdict = _verdict(fetched)
    app.show(f"verified {registry.name}/{name}")
    for key in ("digest", "sha256", "publisher"):
        app.show(f"  {key:<9} {verdict[key]}")
    layers = sum(len(image.manifest.layers) for image in images)
    read = "every byte checked" if deep else "not read; --deep reads them"
    app.show(
        f"  {counted(len(images), 'image')}, {counted(layers, 'layer')} with signed root hashes "
        f"({read})"
    )


@manifest.command()
@shape.place
@shape.trust
@options.as_json
def show(
    repo: str,
    name: str,
    reach: options.Reach,
    project: str | None,
    ca: Path | None,
    product: UUID | None,
    as_json: bool,
) -> None:
    """Show what a published manifest installs, verified when --project or --ca is given.

    \b
    Examples:
      mosb manifest show --repo oci:registry --name machine/install:1.0.0
      mosb manifest show --project snakeoil:default --repo 127.0.0.1:5000 \\
          --name machine/install:1.0.0 --json
    """
    from machineos.document.product.install import parse_install
    from machineos.document.verify.published import fetch_install

    believed = shape.believed(project, ca, product, needed=False)
    with Opener(reach, app.say) as opener:
        registry = opener.registry(repo)
        verdict: dict[str, object] = {"verified": False}
        if believed is None:
            path, tag = shape.split_name(name)
            descriptor, data = fetch_install(registry.repository(path), tag)
            verdict["digest"] = str(descriptor.digest)
            install = parse_install(data)
        else:
            fetched = shape.fetch(registry, name, believed)
            verdict = _verdict(fetched)
            install = fetched.verified.install
    if as_json:
        app.show_json({**verdict, "install": _install_json(install)})
        return
    publisher = verdict.get("publisher")
    signed = f"signed by {publisher}" if publisher else "NOT VERIFIED (give --project or --ca)"
    app.show(f"product {install.product}, {install.update_type} update, {signed}")
    _show_targets(install)
    if install.storage:
        click.echo()
        rows: list[tuple[str, ...]] = [
            (item.label, str(item.size), "yes" if item.persistent else "no", item.nsgroup or "-")
            for item in install.storage
        ]
        app.show_table(("STORAGE", "MIB", "PERSISTENT", "NSGROUP"), rows)


@manifest.command()
def schema() -> None:
    """Print the JSON Schema of manifest.yaml, for editors.

    \b
    Example:
      mosb manifest schema > docs/schema/manifest.schema.json
    """
    from machineos.build.publish.schema import schema_bytes

    click.echo(schema_bytes().decode(), nl=False)


def _image_json(image: VerifiedImage) -> dict[str, object]:
    return {
        "service_name": image.target.service_name,
        "digest": image.target.digest,
        "layers": len(image.manifest.layers),
    }


def _verdict(fetched: Fetched) -> dict[str, object]:
    publisher = fetched.verified.publisher
    return {
        "verified": True,
        "digest": str(fetched.descriptor.digest),
        "sha256": fetched.verified.sha256,
        "publisher": publisher.common_name,
        "product": str(publisher.product),
        "fingerprint": str(publisher.fingerprint),
    }


def _install_json(install: Install) -> object:
    import json

    return json.loads(install.to_bytes())


def _show_targets(install: Install) -> None:
    rows: list[tuple[str, ...]] = []
    for target in install.targets:
        ports = ", ".join(
            f"{port.host}->{port.container}/{port.protocol}" for port in target.network.ports or ()
        )
        address = " ".join(text for text in (target.network.ipv4, target.network.ipv6) if text)
        rows.append(
            (
                target.service_name,
                target.version,
                target.service_type,
                " ".join(part for part in (target.network.type, address) if part),
                ports or "-",
                target.nsgroup or "-",
                target.image.short,
            )
        )
    columns = ("SERVICE", "VERSION", "TYPE", "NETWORK", "PORTS", "NSGROUP", "IMAGE")
    app.show_table(columns, rows)
