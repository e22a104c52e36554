"""One bad input for each rule of the registry, on its way to every gate that can see it.

Who adds a rule adds a row here.
"""

from __future__ import annotations

from machineos.document.model.names import (
    GroupName,
    Label,
    ProductName,
    ServiceName,
    Version,
)
from machineos.document.state.system import assign_idmaps, merge, system_file
from unit.document.conftest import OTHER_PRODUCT, PRODUCT, put_image, signed
from unit.document.product.test_install import SEED
from unit.document.rules import gates
from unit.document.rules.attacks import (
    STACKED,
    Bad,
    add_program,
    after,
    archives,
    away,
    bad_conversion,
    boot_without_modules,
    borrowed,
    config,
    document,
    drop,
    first,
    full,
    handover,
    image,
    link_data,
    link_users,
    linked,
    looked_into,
    manifest,
    many,
    mixed,
    mosd_away,
    mosd_linked,
    mosd_nobody,
    mounts,
    network,
    no_modules,
    nobody,
    other_config,
    ports,
    publish_looking,
    put_archive,
    stored,
    swapped,
    system,
    too_many_documents,
    two_names,
    unmountable,
    unset,
    unsigned,
    volume,
)

GATEWAY = "address 10.0.3.1 is taken by the host"
DIGEST = "sha256:" + "c" * 64
BAD: dict[str, Bad] = {
    "document-version": Bad(
        "is 2, only 1 is known",
        {
            **document(lambda bad: bad.update(version=2), "").attacks,
            "mosd": lambda scene: gates.mosd_handover(scene, lambda bad: bad.update(version=2)),
        },
    ),
    "product-name": document(
        lambda bad: bad.update(product="a/b"), f"'a/b' is not {ProductName.WHAT}"
    ),
    # targets
    "target-count": document(many(509), "has more than 512 targets"),
    "target-some": document(lambda bad: bad.update(targets=[]), "is missing or empty"),
    "target-name": document(first("service_name", "../x"), f"'../x' is not {ServiceName.WHAT}"),
    "target-name-once": document(
        first("service_name", "other"), "'other' is the name of targets[0] already"
    ),
    "target-name-free": document(
        first("service_name", "modules"), "'modules' is reserved for a unit of the system"
    ),
    "target-version": document(first("version", "a/b"), f"'a/b' is not {Version.WHAT}"),
    "target-type": manifest(unset("service_type"), "is missing or empty"),
    "target-type-of-name": document(
        lambda bad: bad["targets"][2].update(service_type="fs-only"),
        "hostfs must be hostfs, not fs-only",
    ),
    "target-one-hostfs": document(
        lambda bad: bad["targets"][1].update(service_type="hostfs", network={"type": "host"}),
        "only the target called hostfs can be hostfs",
    ),
    "target-group": document(first("nsgroup", "a/b"), f"'a/b' is not {GroupName.WHAT}"),
    "target-source": manifest(first("source", "oci:folder"), "names no tag: oci:DIR:TAG"),
    "target-digest": document(
        first("digest", "sha512:" + "a" * 128), "is not a sha256 digest"
    ),
    "target-size": document(first("size", 0), "0 is not the size of an image manifest"),
    # networks
    "port-count": document(ports(4097), "more than 4096 ports are forwarded"),
    "network-own": document(
        lambda bad: bad["targets"][3].update(network={"type": "simple"}),
        "a fs-only target has no network of its own",
    ),
    "network-host-ids": document(
        lambda bad: bad["targets"][1].update(network={"type": "host"}, nsgroup="none"),
        "a container in the network of the host needs an nsgroup",
        "mosd",
    ),
    "address-kind": document(
        network({"type": "host", "ipv4": "10.0.3.9/24"}),
        "a network of type host takes no address",
        "mosd",
    ),
    "address": document(
        network({"ipv4": "10.0.3.9"}),
        "'10.0.3.9' is not an IPv4 address with prefix (example: 10.0.3.99/24)",
        "mosd",
    ),
    "address-inside": document(
        network({"ipv6": "fd00::99/64"}),
        "fd00::99/64 is not in fd6d:6f73:3000:3::/64, the network of mos0",
        "mosd",
    ),
    "address-host": document(
        network({"ipv4": "10.0.3.255/24"}), "10.0.3.255 is not the address of one host", "mosd"
    ),
    "address-free": document(network({"ipv4": "10.0.3.1/24"}), GATEWAY, "mosd"),
    "address-once": document(
        network({"ipv4": "10.0.3.9/24"}, {"ipv4": "10.0.3.9/24"}),
        "address 10.0.3.9 is taken by zot",
        "mosd",
    ),
    "address-room": document(many(251), "no address is free in 10.0.3.0/24", "mosd"),
    "ports-kind": document(
        network({"type": "none", "ports": [{"host": 1, "container": 1}]}),
        "a network of type none forwards no ports",
        "mosd",
    ),
    "port": document(
        network({"ports": [{"host": 65536, "container": 1}]}),
        "65536 is not a port (1 to 65535)",
        "mosd",
    ),
    "port-once": document(
        network({"ports": [{"host": 8, "container": 1}]}, {"ports": [{"host": 8, "container": 2}]}),
        "tcp port 8 of the host is taken by zot",
        "mosd",
    ),
    # storage
    "storage-count": document(
        lambda bad: bad["storage"].extend(
            {**bad["storage"][0], "label": f"v{number}"} for number in range(512)
        ),
        "has more than 512 items",
    ),
    "storage-label": document(volume("label", "a/b"), f"'a/b' is not {Label.WHAT}"),
    "storage-label-free": document(
        volume("label", "ESP"), "'ESP' is reserved for the machine's own partitions"
    ),
    "storage-label-once": document(
        lambda bad: bad["storage"].append({**bad["storage"][0], "label": "DATA"}),
        "'DATA' is the label of storage[0] already",
    ),
    "storage-group": document(volume("nsgroup", "a/b"), f"'a/b' is not {GroupName.WHAT}"),
    "storage-size": document(volume("size", 0), "0 MiB is not between 1 MiB and 16 PiB"),
    "mount-kind": document(
        lambda bad: bad["targets"][3].update(storage=[{"dest": "/a", "label": "data"}]),
        "a fs-only target mounts no storage",
    ),
    "mount-label": document(
        mounts({"dest": "/a", "label": "a/b"}), f"'a/b' is not {Label.WHAT}"
    ),
    "mount-known": document(
        mounts({"dest": "/a", "label": "b"}), "'b' is not the label of a storage item"
    ),
    "mount-group": document(
        volume("nsgroup", "other"), "'data' is a volume of nsgroup 'other', not of 'zot'"
    ),
    "mount-dest": document(
        mounts({"dest": "/a/..", "label": "data"}),
        "'/a/..' is not the plain path of a folder below /",
    ),
    "mount-kernel": document(
        mounts({"dest": "/proc/x", "label": "data"}),
        "'/proc/x' is in /proc, which belongs to the kernel",
    ),
    "mount-once": document(
        mounts({"dest": "/a", "label": "data"}, {"dest": "/a", "label": "data"}),
        "'/a' is taken by targets[0].storage[0] already",
    ),
    # the manifest as a whole
    "product-complete": document(
        lambda bad: bad.update(update_type="partial"),
        "is partial; only a complete manifest can be installed",
        at=("install",),
    ),
    "product-boots": Bad(
        "has no target hostfs",
        {
            **document(drop("hostfs"), "", at=("verify", "install", "boot")).attacks,
            "publish": lambda scene: scene.world.publish(
                scene.source({**scene.document(), "targets": scene.document()["targets"][:1]}),
                defaults=None,
            ),
        },
    ),
    "product-publisher": Bad(
        f"is of product {OTHER_PRODUCT}, not of {PRODUCT}",
        {
            "boot": lambda _scene: merge(
                [signed(SEED.to_bytes()), signed(SEED.to_bytes(), OTHER_PRODUCT)]
            )
        },
    ),
    "product-same-name": Bad("is for 'other', the machine is 'default'", {"boot": two_names}),
    # images
    "claim-digest": manifest(first("digest", DIGEST), f"not {DIGEST}"),
    "claim-size": manifest(first("size", 7), "bytes, not 7"),
    "source-mixed": Bad(
        "mixes tar layers with squashfs or EROFS layers",
        {
            "publish": after(mixed, gates.publish_image),
        },
    ),
    "source-convertible": Bad(
        "has tar layers, which cannot be mounted under dm-verity",
        {
            "publish": after(stored(media_type="tar"), gates.publish_image),
        },
    ),
    "image-size": document(
        lambda bad: bad["targets"][0].update(size=bad["targets"][0]["size"] + 1),
        "bytes, the manifest says",
        at=("verify", "install", "boot"),
    ),
    "image-digest": Bad(
        ", expected sha256:", dict.fromkeys(("verify", "install", "boot"), swapped)
    ),
    "image-config": image(
        other_config, "is not an image: its configuration is 'application/x'"
    ),
    "image-config-size": image(
        stored(run={"Env": ["A=" + "b" * (1 << 20)]}), "bytes, at most 1048576 are read",
        at=("publish", "verify", "mosd"),
    ),
    "image-layer-type": image(
        bad_conversion, "is 'application/x', not squashfs or EROFS with dm-verity"
    ),
    "image-root-hash": image(stored(annotated=False), "carries no verity root hash"),
    "image-layers": image(
        lambda scene: put_image(scene.images, "zot", contents=(b"1", b"2")),
        "has 2 layers, a machine mounts only one",
    ),
    "layer-mountable": unmountable(": is not a squashfs image", b"hsqs, and no more"),
    "root-hash-signed": Bad(
        "nobody signed the root hash of layer sha256:",
        {
            "verify": unsigned(gates.verify_signed),
            "install": unsigned(gates.install_signed),
            "boot": unsigned(gates.boot_signed),
        },
    ),
    "image-folders": Bad(
        "nothing can be mounted at /data: /data is a symbolic link",
        {"publish": linked, "verify": looked_into(link_data), "mosd": mosd_linked},
    ),
    "image-stack": Bad(
        "'/bin/x' wants its stack to be executable",
        {
            "publish": archives(STACKED),
            "convert": after(put_archive(STACKED), gates.convert),
            "verify": looked_into(add_program),
        },
    ),
    "image-bootable": Bad(
        "has no folder /usr/lib/modules",
        {
            "publish": after(no_modules, publish_looking),
            "verify": after(no_modules, gates.publish_carelessly, gates.verify_deeply),
            "boot": boot_without_modules,
        },
    ),
    # configurations
    "config-command": config("is empty, and so is Cmd: nothing to run", Entrypoint=None),
    "config-words": config("has more than 4096 words", Cmd=["a"] * 4097),
    "config-text": config(r"'a\x00b' is not text for a command line", Cmd=["a\0b"]),
    "config-env": config("'HOME' is not NAME=VALUE", Env=["HOME"]),
    "config-user": config(
        "'65536' is not a user and group that an image can have", User="65536"
    ),
    "config-user-files": Bad(
        "/etc/passwd is a symbolic link",
        {"publish": away, "verify": looked_into(link_users), "mosd": mosd_away},
    ),
    "config-user-known": Bad(
        "'app' is not a user and group of the image",
        {
            "publish": nobody,
            "verify": looked_into(lambda _tree: None, User="app"),
            "mosd": mosd_nobody,
        },
    ),
    "config-folder": config("'etc' is not a plain absolute path", WorkingDir="etc"),
    "config-platform": config("is 'arm64', not amd64", architecture="arm64"),
    "config-signal": config("'TERM' is not a signal", StopSignal="TERM"),
    # what a machine has stored of itself
    "system-count": Bad(
        "has not between 1 and 64 entries",
        {
            **system(lambda bad: bad.update(manifests=[]), "").attacks,
            "install": lambda _scene: too_many_documents(),
        },
    ),
    "system-document": system(
        lambda bad: bad.update(manifests=["../x"]), "'../x' is not a sha256 in hex"
    ),
    "system-document-once": system(
        lambda bad: bad.update(manifests=bad["manifests"] * 2), "is there twice"
    ),
    "system-group": system(
        lambda bad: bad["uidmaps"][0].update({"idmap-name": "none"}),
        "'none' means that there are no own ids",
    ),
    "system-group-once": system(
        lambda bad: bad["uidmaps"].append({"idmap-name": "zot", "hostid": 200000}),
        "'zot' is there twice",
    ),
    "id-range-inside": system(
        lambda bad: bad["uidmaps"][0].update(hostid=65535),
        "id range 65535 is outside 65536 to 4294967294",
    ),
    "id-range-apart": system(
        lambda bad: bad["uidmaps"].append({"idmap-name": "a", "hostid": 100001}),
        "id ranges 100000 and 100001 overlap",
    ),
    "id-range-free": Bad(
        "no id range is free for group 'more'",
        {"install": lambda _scene: assign_idmaps(full(), ["more"])},
    ),
    "id-range-given": Bad(
        "group 'zot' has no id range",
        {"install": lambda _scene: system_file(merge([signed(SEED.to_bytes())]), {})},
    ),
    # what the initrd hands over
    "handover-name": handover(
        lambda bad: bad.update(name="../x"), f"'../x' is not {ServiceName.WHAT}"
    ),
    "handover-once": handover(
        lambda bad: bad.update(name="first"), "'first' is the name of services[0] already"
    ),
    "handover-digest": handover(
        lambda bad: bad.update(image="x"), "'x' is not a digest (algorithm:hex)"
    ),
    "handover-root-hash": handover(
        lambda bad: bad["layer"].update(root_hash="x"), "'x' is not a verity root hash"
    ),
    "handover-ids": handover(
        lambda bad: bad.update(hostid=1000), "1000 is among the host's own ids"
    ),
    "handover-key": Bad(
        "'5a' is no key: 32 bytes in hexadecimal",
        {
            "mosd": lambda scene: gates.mosd_handover(
                scene, lambda bad: bad.update(volumes_key="5a")
            )
        },
    ),
    "handover-label": Bad(
        f"'../x' is not {Label.WHAT}",
        {
            "mosd": lambda scene: gates.mosd_handover(
                scene,
                lambda bad: bad.update(volumes=[{"label": "../x", "persistent": True, "size": 1}]),
            )
        },
    ),
    "handover-group": Bad(
        "'data' is a volume of nsgroup 'other', not of 'zot'",
        {
            "mosd": lambda scene: gates.mosd_handover(scene, borrowed)
        },
    ),
    "handover-config": Bad(
        f", not {DIGEST}", {"mosd": lambda scene: gates.mosd_image(scene, config=DIGEST)}
    ),
    "handover-layer": Bad(
        "the image's layer is not the one handed over",
        {"mosd": lambda scene: gates.mosd_image(scene, digest=DIGEST)},
    ),
}  # fmt: skip
