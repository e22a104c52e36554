"""manifest.yaml: seed 002's example, and every fault at once with path and line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.build.publish.publish import load_source
from machineos.build.publish.source import parse_source
from machineos.core.idrange import needs_range
from machineos.document.model.hardware import Hardware, PackageName
from machineos.document.model.install import Mount, Network, Port, Storage
from machineos.errors import DocumentError, Fault, MissingError

SEED = """\
version: 1
product: default
update_type: complete
targets:
  - service_name: zot
    source: "docker://zothub.io/machine/bootkit/demo-zot:0.0.4-squashfs"
    version: 1.0.0
    service_type: container
    nsgroup: "zot"
    network:
      type: simple
      ipv4: 10.0.3.99/24
      ports:
        - host: 80
          container: 5000
"""

# One target to vary: NAME: value lines are put into it.
ONE = """\
version: 1
product: p
update_type: complete
storage:
  - {label: data, persistent: true, nsgroup: '', size: 30G}
targets:
  - service_name: a
    source: oci:images:a
    version: 1.0.0
    service_type: container
"""


def faults(text: str) -> list[tuple[str, int, str]]:
    with pytest.raises(DocumentError) as caught:
        parse_source(text.encode())
    return [(fault.path, fault.line, fault.message) for fault in caught.value.faults]


def places(text: str) -> list[tuple[str, int]]:
    return [(path, line) for path, line, _ in faults(text)]


def one(lines: str) -> str:
    return ONE + "".join(f"    {line}\n" for line in lines.splitlines())


def test_the_seeds_manifest() -> None:
    source = parse_source(SEED.encode())
    assert (source.version, source.product, source.update_type) == (1, "default", "complete")
    target = source.targets[0]
    assert target.service_name == "zot"
    assert str(target.source) == "docker://zothub.io/machine/bootkit/demo-zot:0.0.4-squashfs"
    assert target.version == "1.0.0"
    assert target.network == Network(
        type="simple", ipv4="10.0.3.99/24", ports=(Port(host=80, container=5000),)
    )
    assert (target.digest, target.size) == ("", None)


def test_all_that_may_be_given() -> None:
    text = one(
        f"digest: sha256:{'a' * 64}\nsize: 7290\nstorage: [{{dest: /data, label: data}}]\n"
        "network: {type: simple, ipv6: 'fd6d:6f73:3000:3::99/64', "
        "ports: [{host: 53, container: 53, protocol: udp}, {host: 53, container: 53}]}"
    )
    source = parse_source(text.encode())
    assert source.storage == (Storage(label="data", persistent=True, nsgroup="", size=30720),)
    target = source.targets[0]
    assert target.storage == (Mount(dest="/data", label="data"),)
    assert (target.digest, target.size) == (f"sha256:{'a' * 64}", 7290)
    ports = target.network.ports or ()
    assert [port.protocol for port in ports] == ["udp", "tcp"]


def test_update_type_is_partial_unless_given() -> None:
    assert parse_source(SEED.replace("update_type: complete\n", "").encode()).update_type == (
        "partial"
    )


def test_every_fault_at_once_in_order_with_path_and_line() -> None:
    text = """\
version: 1
product: default
update_type: complete
colour: red
storage:
  - label: machine-data
    size: 30G
  - label: a
    persistent: maybe
    size: 500K
  - label: A
    size: 0
targets:
  - service_name: zot
    source: "docker://Zot/x"
    version: 1.0.0
    service_type: container
    frob: 1
    network:
      type: simple
      ipv4: 10.0.3.0/24
      ports:
        - host: 80
          container: 65536
        - host: abc
          container: 1
  - nonsense
  - service_name: zot
    service_type: daemon
    network:
      type: simple
      ipv4: 10.0.3.255/24
      ports:
        - {host: 80, container: 1}
    storage:
      - {dest: rel, label: b}
    digest: sha512:ab
"""
    assert places(text) == [
        ("colour", 4),
        ("storage[0].label", 6),
        ("storage[1].persistent", 9),
        ("storage[1].size", 10),
        ("storage[2].label", 11),
        ("storage[2].size", 12),
        ("targets[0].source", 15),
        ("targets[0].frob", 18),
        ("targets[0].network.ipv4", 21),
        ("targets[0].network.ports[0].container", 24),
        ("targets[0].network.ports[1].host", 25),
        ("targets[1]", 27),
        ("targets[2].service_name", 28),
        ("targets[2].source", 28),
        ("targets[2].version", 28),
        ("targets[2].service_type", 29),
        ("targets[2].network.ipv4", 32),
        ("targets[2].network.ports[0].host", 34),
        ("targets[2].storage[0].dest", 36),
        ("targets[2].storage[0].label", 36),
        ("targets[2].digest", 37),
    ]


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("nsgroup: '../x'", "targets[0].nsgroup"),
        ("network: {type: bridge}", "targets[0].network.type"),
        (
            "network: {type: host, ports: [{host: 1, container: 1}]}\nnsgroup: g",
            "targets[0].network.ports",
        ),
        ("network: {type: none, ports: [{host: 1, container: 1}]}", "targets[0].network.ports"),
        ("network: {type: host, ipv4: 10.0.3.9/24}\nnsgroup: g", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 10.0.3.9}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 10.0.3.256/24}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 010.0.3.9/24}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 10.0.3.9/7}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 10.0.3.9/31}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 10.0.3.9/255.0.0.0}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 127.0.0.2/8}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 224.0.0.9/24}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 169.254.0.9/24}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 250.0.0.9/24}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv4: 'fd00::9/64'}", "targets[0].network.ipv4"),
        ("network: {type: simple, ipv6: 10.0.3.9/24}", "targets[0].network.ipv6"),
        ("network: {type: simple, ipv6: 'fd00::/64'}", "targets[0].network.ipv6"),
        ("network: {type: simple, ipv6: 'fe80::9/64'}", "targets[0].network.ipv6"),
        ("network: {type: simple, ipv6: 'fe80::9%eth0/64'}", "targets[0].network.ipv6"),
        ("network: {type: simple, ipv6: '::ffff:10.0.0.9/96'}", "targets[0].network.ipv6"),
        ("network: {type: simple, ipv6: 'fd00::9/127'}", "targets[0].network.ipv6"),
        ("storage: [{dest: data, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: /, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: //data, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: /a/../etc, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: /a/, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: '/a b', label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: /proc, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: /sys/fs, label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{label: data}]", "targets[0].storage[0].dest"),
        ("storage: [{dest: /a, label: other}]", "targets[0].storage[0].label"),
        (
            "storage: [{dest: /a, label: data}, {dest: /a, label: data}]",
            "targets[0].storage[1].dest",
        ),
        ("digest: sha256:../..", "targets[0].digest"),
        ("size: 0", "targets[0].size"),
        ("size: -1", "targets[0].size"),
        ("size: 4294967297", "targets[0].size"),
        ("size: 1e3", "targets[0].size"),
    ],
)
def test_a_bad_value_of_a_target(lines: str, path: str) -> None:
    assert [found[0] for found in faults(one(lines))] == [path]
    assert faults(one(lines))[0][1] == 11


@pytest.mark.parametrize("port", ["0", "65536", "-1", "99999999999", "80.0", "0x50", "http", "''"])
def test_a_bad_port(port: str) -> None:
    text = one(f"network: {{type: simple, ports: [{{host: {port}, container: 80}}]}}")
    assert places(text) == [("targets[0].network.ports[0].host", 11)]


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("version: 1\n", "version: 2\n", "version"),
        ("version: 1\n", "", "version"),
        ("product: p\n", "", "product"),
        ("product: p\n", "product: a/b\n", "product"),
        ("complete", "full", "update_type"),
        ("service_name: a", "service_name: A", "targets[0].service_name"),
        ("service_name: a", "service_name: ../../x", "targets[0].service_name"),
        ("service_name: a", f"service_name: {'a' * 64}", "targets[0].service_name"),
        ("version: 1.0.0", "version: a/b", "targets[0].version"),
        ("service_type: container", "service_type: hostfs", "targets[0].service_type"),
        ("service_type: container", "service_type: vm", "targets[0].service_type"),
        ("service_name: a", "service_name: hostfs", "targets[0].service_type"),
        ("service_name: a", "service_name: bootkit", "targets[0].service_type"),
        ("service_name: a", "service_name: livecd", "targets[0].service_type"),
        ("oci:images:a", "images:a", "targets[0].source"),
        ("oci:images:a", "oci:images", "targets[0].source"),
        ("oci:images:a", "oci::a", "targets[0].source"),
        ("oci:images:a", "docker://name:tag", "targets[0].source"),
        ("oci:images:a", "docker://h:1/UP:tag", "targets[0].source"),
        ("oci:images:a", "docker://h:1/../x:tag", "targets[0].source"),
        ("oci:images:a", "docker://h:1/x@sha256:../..", "targets[0].source"),
        ("label: data", "label: ESP", "storage[0].label"),
        ("label: data", "label: machine-store", "storage[0].label"),
        ("label: data", "label: machine-config", "storage[0].label"),
        ("label: data", "label: machine-scratch", "storage[0].label"),
        ("label: data", "label: a/b", "storage[0].label"),
        ("size: 30G", "size: -5", "storage[0].size"),
        ("size: 30G", "size: 30X", "storage[0].size"),
        ("size: 30G", "size: 99999999P", "storage[0].size"),
        ("size: 30G", "size: 0", "storage[0].size"),
        ("persistent: true", "persistent: yes", "storage[0].persistent"),
        ("nsgroup: ''", "nsgroup: 'a b'", "storage[0].nsgroup"),
    ],
)
def test_a_bad_value_elsewhere(before: str, after: str, path: str) -> None:
    assert ONE.count(before) >= 1
    assert [
        found[0]
        for found in faults(
            ONE.replace(before, after, 1)
            if before != "version: 1.0.0"
            else ONE.replace(before, after)
        )
    ] == [path]


def two(first: str, second: str) -> str:
    target = ONE[ONE.index("  - service_name") :]
    other = target.replace("service_name: a", "service_name: b")
    return ONE + f"    {first}\n" + other + f"    {second}\n"


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        (
            "network: {type: simple, ports: [{host: 80, container: 1}]}",
            "network: {type: simple, ports: [{host: 80, container: 2}]}",
            "targets[1].network.ports[0].host",
        ),
        (
            "network: {type: simple, ipv4: 10.0.3.9/24}",
            "network: {type: simple, ipv4: 10.0.3.9/24}",
            "targets[1].network.ipv4",
        ),
        (
            "network: {type: simple, ipv4: 10.0.3.9/24}",
            "network: {type: simple, ipv4: 10.0.5.9/16}",
            "targets[1].network.ipv4",
        ),
        (
            "network: {type: simple, ipv6: 'fd6d:6f73:3000:3::9/64'}",
            "network: {type: simple, ipv6: 'fd6d:6f73:3000:3:0::0009/64'}",
            "targets[1].network.ipv6",
        ),
    ],
)
def test_targets_that_get_in_each_others_way(first: str, second: str, path: str) -> None:
    assert places(two(first, second)) == [(path, 16)]


def test_the_same_port_for_tcp_and_udp_is_no_clash() -> None:
    parse_source(
        two(
            "network: {type: simple, ports: [{host: 53, container: 1}]}",
            "network: {type: simple, ports: [{host: 53, container: 1, protocol: udp}]}",
        ).encode()
    )


def test_a_volume_may_be_used_by_two_targets() -> None:
    parse_source(
        two("storage: [{dest: /a, label: data}]", "storage: [{dest: /a, label: data}]").encode()
    )


def test_a_partial_update_may_mount_what_an_earlier_manifest_brought() -> None:
    text = one("storage: [{dest: /a, label: other}]")
    assert places(text) == [("targets[0].storage[0].label", 11)]
    parse_source(text.replace("complete", "partial").encode())


@pytest.mark.parametrize(
    ("text", "size"),
    [("30G", 30720), ("512M", 512), ("30720", 30720), ("1GiB", 1024), ("1T", 1 << 20)],
)
def test_sizes_of_volumes_in_mib(text: str, size: int) -> None:
    assert parse_source(ONE.replace("30G", text).encode()).storage[0].size == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "just words",
        "version: 1\nversion: 1\n",
        "version: &a 1\nproduct: *a\n",
        "version: !!int 1\n",
        "version: 1\n---\nversion: 1\n",
        "\t",
        "targets: {a: b}",
        "targets: [[]]",
        "? [a]\n: b",
    ],
)
def test_what_is_no_manifest_at_all(text: str) -> None:
    assert faults(text)


def test_no_targets() -> None:
    assert ("targets", 1) in places("version: 1\nproduct: p\n")


def test_a_file_that_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        load_source(tmp_path / "none.yaml")
    with pytest.raises(DocumentError):
        load_source(tmp_path)
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(DocumentError):
        load_source(tmp_path / "large.yaml")
    (tmp_path / "good.yaml").write_text(SEED)
    assert load_source(tmp_path / "good.yaml") == parse_source(SEED.encode())


def faults_or_none(data: bytes) -> Sequence[Fault] | None:
    try:
        parse_source(data)
    except DocumentError as error:
        return error.faults
    return None


LINES = ONE.splitlines() + SEED.splitlines()


@given(st.lists(st.sampled_from([*LINES, "x: 1", "    - {}", "", "  network: []"]), max_size=25))
def test_any_heap_of_lines_is_read_or_refused_with_lines_that_exist(lines: list[str]) -> None:
    found = faults_or_none("\n".join(lines).encode())
    assert found is None or found
    assert all(0 <= fault.line <= len(lines) + 1 for fault in found or ())


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    found = faults_or_none(data)
    assert found is None or found


def test_hardware_is_read_and_has_defaults() -> None:
    """It may be left out whole, or in part; a list that is null is empty."""
    assert parse_source(ONE.encode()).hardware is None
    text = ONE + "hardware: {kernel: cloud, firmware: [firmware-bnx2x], microcode: intel}\n"
    wanted = Hardware(kernel="cloud", firmware=(PackageName("firmware-bnx2x"),), microcode="intel")
    assert parse_source(text.encode()).hardware == wanted
    part = parse_source((ONE + "hardware: {firmware: null}\n").encode())
    assert part.hardware == Hardware()


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("hardware: {kernel: other}", "hardware.kernel"),
        ("hardware: {microcode: arm}", "hardware.microcode"),
        ("hardware: {firmware: [a/testing]}", "hardware.firmware[0]"),
        ("hardware: {driver: x}", "hardware.driver"),
        ("hardware: cloud", "hardware"),
    ],
)
def test_hardware_that_is_not_known(line: str, path: str) -> None:
    assert [place for place, _ in places(f"{ONE}{line}\n")] == [path]


@pytest.mark.parametrize(
    ("name", "said", "group"),
    [
        ("web", "", "web"), ("web", "nsgroup: ''", "web"), ("web", "nsgroup: none", "none"),
        ("web", "nsgroup: g", "g"), ("none", "", "none.own"),
        ("files", "fs-only", ""), ("hostfs", "hostfs", ""),
    ],
)  # fmt: skip
def test_the_ids_of_the_host_have_to_be_asked_for(name: str, said: str, group: str) -> None:
    kind, said = (said, "") if said in {"fs-only", "hostfs"} else ("container", said)
    text = f"""\
version: 1
product: p
targets:
  - service_name: {name}
    source: oci:a:b
    version: "1"
    service_type: {kind}
    {said}
"""
    (target,) = parse_source(text.encode()).targets
    assert target.nsgroup == group
    assert needs_range(group) == (kind == "container" and "none" not in said)
