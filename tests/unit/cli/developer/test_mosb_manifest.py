"""``mosb manifest`` as a user types it, against OCI layouts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from fakes.randomness import FixedRandomness
from machineos.build.publish.schema import schema, schema_bytes
from machineos.build.publish.source import SourceTarget, _Document
from machineos.build.recipe.inspection import packing
from machineos.build.recipe.record import Record
from machineos.cli.developer.mosb_manifest import manifest
from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.rules.images import layers_of
from machineos.errors import (
    DocumentError,
    MachineOSError,
    MissingError,
    PolicyError,
    SignatureError,
    UsageError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import root_hash_annotations
from machineos.oci.model.documents import (
    CONFIG,
    INDEX,
    MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)
from machineos.trust.keys.keyset import add_project, create_keyset, find_project
from unit.build import ready
from unit.build.images import put
from unit.build.tarmaker import END, folder
from waiting import PATIENCE

pytestmark = [pytest.mark.tool(name) for name in ("mksquashfs", "sqfs2tar", "veritysetup")]
ROOT = Path(__file__).parents[4]
NAME = ["--name", "machine/install:1.0.0"]
TEXT = """\
version: 1
product: default
update_type: complete
targets:
  - service_name: zot
    source: "oci:{home}/images:zot"
    version: 1.0.0
    service_type: container
    nsgroup: zot
    network: {type: simple, ipv4: 10.0.3.99/24, ports: [{host: 80, container: 5000}]}
"""


def put_image(folder: Path, tag: str, label: str = "") -> None:
    repository = LayoutRepository(folder, writable=True)
    layers = []
    for number in range(layers_of(tag.partition("-")[0])):
        packed = ready.noted(f"{tag} {number}")
        content = packed.content
        layer = Descriptor(
            media_type=packed.media_type,
            digest=Digest.of(content),
            size=len(content),
            annotations=root_hash_annotations(RootHash(packed.root_hash)),
        )
        repository.put_blob(layer, [content])
        layers.append(layer)
    labels = {"org.opencontainers.image.version": label}
    data = msgspec.json.encode(
        {
            "created": "2025-01-01T00:00:00Z",
            "os": "linux",
            "config": {"Labels": labels, "Cmd": ["/run"]},
        }
    )
    config = Descriptor(media_type=CONFIG, digest=Digest.of(data), size=len(data))
    repository.put_blob(config, [data])
    image = Manifest(media_type=MANIFEST, config=config, layers=tuple(layers))
    repository.put_manifest(image.to_bytes(), media_type=MANIFEST, tag=tag)


MAIN = "from machineos.cli.developer.mosb import main; main()"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a keyset, its hostfs and bootkit, and one image."""
    home = tmp_path_factory.mktemp("home")
    keysets = home / ".local/share/machine/trust/keys"
    keyset = create_keyset(
        keysets,
        "snakeoil",
        organization="Test",
        passphrase=None,
        clock=SystemClock(),
        random=FixedRandomness(),
    )
    add_project(keyset, "other", clock=SystemClock(), random=FixedRandomness("later"))
    put_image(keyset.root / "hostfs/oci", "hostfs", "v0.1.0")
    put_image(keyset.root / "bootkit/oci", "bootkit-squashfs")
    put_image(home / "images", "zot")
    images = LayoutRepository(home / "images", writable=True)
    _, data = images.manifest("zot")
    for layer in parse_manifest(data, name="zot").layers:  # as if this user had built it
        Record(home / ".cache/machineos/proved").note(packing(layer))
    return home


@dataclass(frozen=True)
class Mosb:
    """The command in a home of its own. Its own errors are raised, any other end is a fault."""

    home: Path

    @property
    def repo(self) -> list[str]:
        """The option for the registry of this home."""
        return ["--repo", f"oci:{self.home}/registry"]

    def __call__(self, *arguments: str, **environ: str) -> Result:
        runner = CliRunner(env={"HOME": str(self.home), "XDG_DATA_HOME": "", **environ})
        result = runner.invoke(manifest, list(arguments))
        if isinstance(result.exception, MachineOSError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result


@pytest.fixture
def mosb(prepared: Path, tmp_path: Path) -> Mosb:
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    (home / "manifest.yaml").write_text(TEXT.replace("{home}", str(home)))
    return Mosb(home)


def publish(mosb: Mosb, *more: str, project: str = "snakeoil:default", **environ: str) -> Result:
    return mosb(
        "publish", "--project", project, *mosb.repo, *NAME, *more,
        str(mosb.home / "manifest.yaml"), **environ,
    )  # fmt: skip


def test_publish_verify_show(mosb: Mosb) -> None:
    result = publish(mosb)
    assert "published oci:" in result.stdout
    assert "sign the manifest" in result.stderr
    verified = mosb("verify", "--project", "snakeoil:default", *mosb.repo, *NAME)
    assert "3 images, 4 layers with signed root hashes" in verified.stdout
    shown = mosb("show", *mosb.repo, *NAME)
    assert "NOT VERIFIED" in shown.stdout
    assert "80->5000/tcp" in shown.stdout
    shown = mosb("show", "--project", "snakeoil:default", *mosb.repo, *NAME)
    assert "signed by manifest PRODUCT:" in shown.stdout


def test_json_everywhere(mosb: Mosb) -> None:
    published = json.loads(publish(mosb, "--json").stdout)
    verified = json.loads(
        mosb("verify", "--project", "snakeoil", *mosb.repo, *NAME, "--json").stdout
    )
    shown = json.loads(mosb("show", *mosb.repo, *NAME, "--json").stdout)
    assert published["digest"] == verified["digest"] == shown["digest"]
    assert published["sha256"] == verified["sha256"]
    assert published["install"] == shown["install"]
    assert (verified["verified"], shown["verified"]) == (True, False)
    names = [target["service_name"] for target in shown["install"]["targets"]]
    assert names == ["zot", "hostfs", "bootkit"]


def test_publishing_twice_changes_nothing_and_the_epoch_comes_from_outside(mosb: Mosb) -> None:
    first = json.loads(publish(mosb, "--json").stdout)
    assert first["created"] == "2025-01-01T00:00:00+00:00"
    assert json.loads(publish(mosb, "--json").stdout) == first
    told = json.loads(publish(mosb, "--json", SOURCE_DATE_EPOCH="1700000000").stdout)
    assert told["created"] == "2023-11-14T22:13:20+00:00"
    assert told["sha256"] == first["sha256"]


def test_skip_bootkit(mosb: Mosb) -> None:
    with pytest.raises(PolicyError, match="has no target hostfs"):
        publish(mosb, "--skip-bootkit")
    path = mosb.home / "manifest.yaml"
    path.write_text(path.read_text().replace("complete", "partial"))
    for option in ("--skip-bootkit", "--skip-boot"):
        body = json.loads(publish(mosb, option, "--json").stdout)
        assert [target["service_name"] for target in body["install"]["targets"]] == ["zot"]


def test_ca_and_product(mosb: Mosb) -> None:
    publish(mosb)
    keyset, project = find_project(mosb.home / ".local/share/machine/trust/keys", "snakeoil")
    ca = str(keyset.root / "manifest-ca/cert.pem")
    mosb("verify", "--ca", ca, *mosb.repo, *NAME)
    mosb("verify", "--ca", ca, "--product", str(project.uuid), *mosb.repo, *NAME)
    with pytest.raises(PolicyError):
        mosb("verify", "--project", "snakeoil:other", *mosb.repo, *NAME)
    with pytest.raises(SignatureError):
        mosb("verify", "--ca", str(keyset.root / "sudi-ca/cert.pem"), *mosb.repo, *NAME)
    with pytest.raises(UsageError):
        mosb("verify", *mosb.repo, *NAME)
    with pytest.raises(UsageError):
        mosb("verify", "--ca", ca, "--project", "snakeoil", *mosb.repo, *NAME)


def test_a_flipped_bit_in_any_blob_is_found(mosb: Mosb) -> None:
    publish(mosb)
    command = ["verify", "--deep", "--project", "snakeoil", *mosb.repo, *NAME]
    mosb(*command)
    blobs = list((mosb.home / "registry").rglob("blobs/sha256/*"))
    assert len(blobs) > 12
    for path in blobs:
        good = path.read_bytes()
        if good == b"{}" or good.startswith(b'{"schemaVersion":2,"mediaType":"' + INDEX.encode()):
            continue  # or a list of referrers, which is there for others
        bad = bytearray(good)
        bad[len(good) // 2] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises(MachineOSError):
            mosb(*command)
        path.write_bytes(good)
    mosb(*command)


def test_a_missing_layer_is_found_without_reading_them(mosb: Mosb) -> None:
    publish(mosb)
    content = Digest.of(ready.noted("zot 0").content).hex
    (mosb.home / "registry/mos/blobs/sha256" / content).unlink()
    with pytest.raises(MissingError, match="zot"):
        mosb("verify", "--project", "snakeoil", *mosb.repo, *NAME)


def test_a_manifest_with_faults_names_all_of_them(mosb: Mosb) -> None:
    path = mosb.home / "manifest.yaml"
    path.write_text(path.read_text().replace("host: 80", "host: 0").replace("zot\n", "Zot\n", 1))
    with pytest.raises(DocumentError) as caught:
        publish(mosb)
    assert len(caught.value.faults) == 2
    assert not (mosb.home / "registry").exists()


def test_what_is_not_built_says_what_to_run(mosb: Mosb) -> None:
    shutil.rmtree(mosb.home / ".local/share/machine/trust/keys/snakeoil/bootkit")
    with pytest.raises(MissingError) as caught:
        publish(mosb)
    assert "mosb bootkit build" in caught.value.hint


@pytest.mark.parametrize("name", ["machine/install", ":1.0.0", "../x:1", "A:1", "a:b/c"])
def test_bad_names(mosb: Mosb, name: str) -> None:
    with pytest.raises((UsageError, DocumentError)):
        mosb("show", *mosb.repo, "--name", name)


def test_the_schema_in_the_documentation_is_up_to_date(mosb: Mosb) -> None:
    printed = mosb("schema").stdout
    assert printed.encode() == schema_bytes()
    assert (ROOT / "docs/schema/manifest.schema.json").read_bytes() == schema_bytes()


def test_the_schema_knows_just_the_keys_of_the_model() -> None:
    def keys(model: type[msgspec.Struct]) -> set[str]:
        return {item.encode_name for item in msgspec.structs.fields(model)}

    properties = schema()["properties"]
    assert set(properties) == keys(_Document)
    assert set(properties["targets"]["items"]["properties"]) == keys(SourceTarget)


@pytest.mark.parametrize("command", ["publish", "verify", "show", "schema"])
def test_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(manifest, [command, "--help"])
    assert result.exit_code == 0
    assert f"mosb manifest {command}" in result.output


def test_a_manifest_comes_from_standard_input_too(mosb: Mosb) -> None:
    """And from what a shell puts in its place, as <(command) is."""
    words = ["publish", "--project", "snakeoil", *mosb.repo, *NAME]
    data = (mosb.home / "manifest.yaml").read_bytes()
    argv = [sys.executable, "-c", MAIN, "manifest", *words]
    env = {"HOME": str(mosb.home), "PYTHONPATH": ":".join(sys.path)}
    first = run.run([*argv, "-"], input=data, env=env, timeout=PATIENCE).text
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    fds = (reader,)
    again = run.run([*argv, f"/dev/fd/{reader}"], env=env, timeout=PATIENCE, pass_fds=fds).text
    os.close(reader)
    assert "published oci:" in first
    assert again == first
    bad = run.run([*argv, "-"], input=b"nope: 1\n", env=env, timeout=PATIENCE, check=False)
    assert bad.status == 3
    assert bad.stderr.startswith(b"mosb: /dev/stdin: ")


def test_a_hint_says_where_it_belongs(mosb: Mosb) -> None:
    with pytest.raises(UsageError) as caught:
        mosb("show", *mosb.repo, "--name", "x")
    assert caught.value.hint == "for example: --name machine/install:1.0.0"


def test_what_is_no_manifest_is_called_by_its_name(mosb: Mosb) -> None:
    publish(mosb)
    tag = next(iter(LayoutRepository(mosb.home / "registry/mos").tags()))
    with pytest.raises(VerificationError) as caught:
        mosb("show", *mosb.repo, "--name", f"mos:{tag}")
    assert caught.value.message.startswith(f"oci:{mosb.home}/registry/mos:{tag}: is not a machine")


def test_a_command_imports_no_http_for_a_layout_and_no_yaml_to_verify(mosb: Mosb) -> None:
    """The budget of 0.35 s for ``verify`` is kept by what is not imported."""
    publish(mosb)
    code = (
        "import sys\n"
        "from machineos.cli.developer.mosb_manifest import manifest\n"
        f"manifest({['verify', '--project', 'snakeoil', *mosb.repo, *NAME]!r},"
        " standalone_mode=False)\n"
        "print(sorted({'urllib3', 'yaml', 'rich', 'http.client'} & set(sys.modules)))\n"
    )
    result = run.run([sys.executable, "-c", code], timeout=PATIENCE, env={"HOME": str(mosb.home)})
    assert result.text.endswith("[]")


def test_an_image_of_archives_is_converted_once(mosb: Mosb) -> None:
    """Of the same bytes for the same mounts, by the same programs: the cache has the rest."""
    layer = b"".join(folder(f"{name}/") for name in ("dev", "proc", "sys", "var/data")) + END
    images = LayoutRepository(mosb.home / "images", writable=True)
    put(images, layer, tag="zot", config={"Cmd": ["/run"]})
    first, second = publish(mosb), publish(mosb)
    assert "packing squashfs" in first.stderr
    assert "packing" not in second.stderr
    assert "unpacking" not in second.stderr
    assert first.stdout == second.stdout
    path = mosb.home / "manifest.yaml"
    mounted = "    storage: [{dest: /var/data, label: data}]\n"
    path.write_text(f"{path.read_text()}{mounted}storage: [{{label: data, size: 1}}]\n")
    assert "packing squashfs" in publish(mosb).stderr
    (cached,) = (mosb.home / ".cache/machineos").glob("converted")
    shutil.rmtree(cached)
    assert "packing squashfs" in publish(mosb).stderr
