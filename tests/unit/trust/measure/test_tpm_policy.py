"""Policy digests against published values, a real TPM and tpm2-tools; the document, its faults."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from changed import replace
from fakes.swtpm import SoftwareTpm, software_tpm
from machineos.errors import DocumentError, SignatureError
from machineos.host.tpm.wire import (
    Command,
    Handle,
    Hierarchy,
    NvAttribute,
    NvPublic,
    SessionKind,
    rsa_public,
)
from machineos.trust.measure.tpm_policy import (
    BOOT_PCRS,
    EMPTY,
    FIRST_DOOR,
    PHASES,
    Operation,
    SignedPolicy,
    boot_policy,
    check_version,
    first_write_policy,
    in_phase,
    parse_policies,
    policy_authorize,
    policy_command_code,
    policy_key,
    policy_nv,
    policy_nv_written,
    policy_or,
    policy_pcr,
    policy_ref,
    render_policies,
    sign_policy,
    version_index,
)
from vectors.certificates import ec_key
from vectors.certificates import key as rsa_key

# originals.md section 7: what the predecessor's keys repository publishes.
PCR7_PRODUCTION = bytes.fromhex("e5936c3e9f1b8f53d1ba5b597ed11ba0d66e29f9558d02c96e99a149b75dada8")
PCR7_TPM = bytes.fromhex("254d1d3854f71ad22f7046d037a898a51880415b01ecdc577e242a146116eea0")
SECOND = hashlib.sha256(b"machineos phase 2").digest()
PREDECESSOR_INDEX = NvPublic(0x1500020, NvAttribute(0x20060002), b"", 4)


def pem(label: str) -> bytes:
    return (
        rsa_key(label)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def sign(message: bytes) -> bytes:
    return rsa_key("tpmpol-luks").sign(message, padding.PKCS1v15(), hashes.SHA256())


def test_the_predecessors_password_policy() -> None:
    assert policy_pcr(EMPTY, {7: PCR7_TPM}).hex().startswith("661c5399")


def test_the_predecessors_luks_policy() -> None:
    digest = policy_nv(
        policy_pcr(EMPTY, {7: PCR7_PRODUCTION}),
        PREDECESSOR_INDEX.name,
        b"0001",
        0,
        Operation.EQ,
    )
    assert digest.hex().startswith("0cd1cdf3b390")
    assert hashlib.sha256(digest).hexdigest().startswith("86a964f985cf")


def test_each_part_of_a_boot_policy_counts() -> None:
    values = {7: b"\1" * 32, 11: b"\2" * 32}
    name = version_index(policy_key(pem("tpmpol-luks"))).name
    digests = {
        boot_policy(values, "0001", name),
        boot_policy(values, "0002", name),
        boot_policy(values | {7: b"\3" * 32}, "0001", name),
        boot_policy(values | {11: b"\3" * 32}, "0001", name),
        boot_policy(values | {12: b"\3" * 32}, "0001", name),
        boot_policy({7: values[11], 11: values[7]}, "0001", name),
        boot_policy(values, "0001", version_index(policy_key(pem("other"))).name),
    }
    assert len(digests) == 7
    assert boot_policy(dict(reversed(values.items())), "0001", name) in digests


@pytest.mark.parametrize(
    "version", ["", "1", "1" * 30, "00001", "000a", "\u0660\u0660\u0660\u0661", "0001\n", "-001"]
)
def test_a_version_is_four_digits(version: str) -> None:
    with pytest.raises(DocumentError) as caught:
        boot_policy({7: EMPTY, 11: EMPTY}, version, b"name")
    assert caught.value.message == f"policy version: {version[:20]!r} is not four digits"
    assert check_version("0000") == "0000"


@pytest.mark.parametrize("values", [{}, {7: EMPTY}, {11: EMPTY}, {7: EMPTY, 12: EMPTY}])
def test_a_boot_policy_without_pcr_7_or_11_is_none(values: dict[int, bytes]) -> None:
    with pytest.raises(DocumentError) as caught:
        boot_policy(values, "0001", b"name")
    assert caught.value.message == "boot policy: does not name PCR 7 and PCR 11"


def test_signature_is_over_the_digest_and_the_reference() -> None:
    digest = b"d" * 32
    signature = sign_policy(digest, sign, b"ref")
    public = rsa_key("tpmpol-luks").public_key()
    public.verify(signature, digest + b"ref", padding.PKCS1v15(), hashes.SHA256())
    public.verify(sign_policy(digest, sign), digest, padding.PKCS1v15(), hashes.SHA256())
    for bad in (b"d" * 31, b"d" * 33):
        with pytest.raises(SignatureError) as caught:
            sign_policy(bad, sign)
        assert caught.value.message == f"a policy digest has 32 bytes, not {len(bad)}"


def test_the_two_phases_differ_in_pcr_11_and_in_the_reference() -> None:
    """PCR 11 as the first door leaves it; systemd's format, without a reference, is the first."""
    values = {7: b"7" * 32, 11: b"b" * 32, 12: EMPTY}
    door = hashlib.sha256(b"machineos-first-door").digest()
    assert (door, ("first", "second")) == (FIRST_DOOR, PHASES)
    assert in_phase(values, "first") == values
    behind = hashlib.sha256(values[11] + door).digest()
    assert in_phase(values, "second") == {7: b"7" * 32, 11: behind, 12: EMPTY}
    assert [policy_ref(one) for one in (None, "first", "admin", "second")] == [
        b"",
        b"",
        b"",
        SECOND,
    ]


def _pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_keys_that_cannot_sign_policies() -> None:
    size = "is not of 2048, 3072 or 4096 bits with exponent 65537"
    for data, fault in (
        (b"", "is not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not a public key"),
        (_pem_of(ec_key()), "is not an RSA key"),
        (_public(1024), size),
        (_public(2056), size),
        (_public(3080), size),
        (_public(8192), size),
        (_public(2048, exponent=65539), size),
    ):
        with pytest.raises(DocumentError) as caught:
            policy_key(data)
        assert caught.value.message == f"TPM policy key: {fault}"


def _public(bits: int, exponent: int = 65537) -> bytes:
    """A key that nobody has the private half of."""
    key = rsa.RSAPublicNumbers(exponent, 1 << (bits - 1) | 1).public_key()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_keys_that_can_sign_policies(bits: int) -> None:
    key = policy_key(_public(bits))
    assert key.public == rsa_public(1 << (bits - 1) | 1, bits)
    assert key.name == b"\0\x0b" + hashlib.sha256(key.public).digest()
    assert key.policy("first") == policy_authorize(key.name)
    assert key.policy("second") == policy_authorize(key.name, SECOND)


def test_the_version_index_is_named_from_what_provisioning_makes() -> None:
    key = policy_key(pem("tpmpol-luks"))
    either = policy_or((key.policy("second"), first_write_policy()))
    attributes = (
        NvAttribute.AUTHREAD | NvAttribute.POLICYWRITE | NvAttribute.NO_DA | NvAttribute.WRITTEN
    )
    assert version_index(key) == NvPublic(0x1500020, attributes, either, 4)
    assert (bytes(32), (7, 11)) == (EMPTY, BOOT_PCRS)


# -- against a TPM -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


def _define_version(chip: SoftwareTpm) -> NvPublic:
    """Define an index that PolicyNV can read, with content, and set PCR 7 and 11."""
    public = NvPublic(0x1500020, NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD, b"", 4)
    chip.wipe()
    with chip.open() as tpm:
        tpm.nv_define(public)
        tpm.nv_write(public, b"0003", by=Handle.of(Hierarchy.OWNER))
        tpm.pcr_extend(7, b"\7" * 32)
        tpm.pcr_extend(11, b"\x0b" * 32)
    return public.written()


@pytest.mark.tool("swtpm")
def test_trial_sessions_compute_the_same(chip: SoftwareTpm) -> None:
    public = _define_version(chip)
    key = policy_key(pem("tpmpol-luks"))
    with chip.open() as tpm:
        values = tpm.pcr_read(7, 11)
        with tpm.session(SessionKind.TRIAL) as session:
            tpm.policy_pcr(session, 7, 11)
            assert tpm.policy_get_digest(session) == policy_pcr(EMPTY, values)
            tpm.policy_nv(session, public, b"0005", Operation.UNSIGNED_LE)
            digest = boot_policy(values, "0005", public.name)
            assert tpm.policy_get_digest(session) == digest
            loaded = tpm.load_external(key.public)
            assert loaded.name == key.name
            ticket = tpm.verify_signature(
                loaded, hashlib.sha256(digest).digest(), sign_policy(digest, sign)
            )
            tpm.policy_authorize(session, digest, key.name, ticket)
            assert tpm.policy_get_digest(session) == policy_authorize(key.name)
            assert tpm.policy_get_digest(session) == key.policy("first")
            tpm.policy_restart(session)
            assert tpm.policy_get_digest(session) == EMPTY
            tpm.policy_pcr(session, 7, 11)
            tpm.policy_nv(session, public, b"0005", Operation.UNSIGNED_LE)
            signature = sign_policy(digest, sign, SECOND)
            ticket = tpm.verify_signature(
                loaded, hashlib.sha256(digest + SECOND).digest(), signature
            )
            tpm.policy_authorize(session, digest, key.name, ticket, SECOND)
            assert tpm.policy_get_digest(session) == key.policy("second")
        with tpm.session(SessionKind.TRIAL) as session:
            tpm.policy_nv_written(session, written=False)
            assert tpm.policy_get_digest(session) == policy_nv_written(EMPTY, written=False)
            tpm.policy_command_code(session, Command.NV_WRITE)
            assert tpm.policy_get_digest(session) == first_write_policy()
            tpm.policy_or(session, (key.policy("second"), first_write_policy()))
            assert tpm.policy_get_digest(session) == version_index(key).policy
        assert policy_command_code(EMPTY, Command.NV_READ) != first_write_policy()
        assert policy_or((key.policy("second"), EMPTY)) != version_index(key).policy


@pytest.mark.tool("swtpm")
@pytest.mark.tool("tpm2")
def test_tpm2_tools_compute_the_same(chip: SoftwareTpm, tmp_path: Path) -> None:
    public = _define_version(chip)
    with chip.open() as tpm:
        values = tpm.pcr_read(7, 11)
    session, digest, key = tmp_path / "session", tmp_path / "digest", tmp_path / "key.pem"
    key.write_bytes(pem("tpmpol-luks"))
    operand = tmp_path / "operand"
    operand.write_bytes(b"0005")
    chip.tool("tpm2_startauthsession", "-S", session)
    chip.tool("tpm2_policypcr", "-S", session, "-l", "sha256:7,11", "-L", digest)
    assert digest.read_bytes() == policy_pcr(EMPTY, values)
    chip.tool(
        "tpm2_policynv", "-S", session, "-i", operand, "-L", digest, "0x1500020", "ule"
    )  # fmt: skip
    assert digest.read_bytes() == boot_policy(values, "0005", public.name)
    chip.tool("tpm2_flushcontext", session)
    name = tmp_path / "name"
    chip.tool(
        "tpm2_loadexternal", "-C", "o", "-G", "rsa", "-u", key, "-c", tmp_path / "c", "-n", name
    )
    assert name.read_bytes() == policy_key(key.read_bytes()).name
    chip.tool("tpm2_flushcontext", "-t")
    chip.tool("tpm2_startauthsession", "-S", session)
    chip.tool("tpm2_policyauthorize", "-S", session, "-n", name, "-L", digest)
    assert digest.read_bytes() == policy_authorize(name.read_bytes())
    chip.tool("tpm2_flushcontext", session)
    ref = tmp_path / "ref"
    ref.write_bytes(SECOND)
    chip.tool("tpm2_startauthsession", "-S", session)
    chip.tool("tpm2_policyauthorize", "-S", session, "-n", name, "-q", ref, "-L", digest)
    assert digest.read_bytes() == policy_authorize(name.read_bytes(), SECOND)
    chip.tool("tpm2_flushcontext", session)
    chip.tool("tpm2_startauthsession", "-S", session)
    chip.tool("tpm2_policynvwritten", "-S", session, "-L", digest, "c")
    chip.tool("tpm2_policycommandcode", "-S", session, "-L", digest, "TPM2_CC_NV_Write")
    assert digest.read_bytes() == first_write_policy()
    chip.tool("tpm2_flushcontext", session)


# -- the document --------------------------------------------------------------------------------

GOOD = SignedPolicy(
    pcrs=(7, 11),
    fingerprint="ab" * 32,
    policy=b"p" * 32,
    signature=b"s" * 256,
    version="0001",
    purpose="first",
    values=(b"7" * 32, b"b" * 32),
)


def test_document_is_systemds_with_our_keys() -> None:
    plain = SignedPolicy((11,), "cd" * 32, b"q" * 32, b"t" * 256)
    document = render_policies([GOOD, plain])
    assert document.startswith(b'{"sha256":[{"pcrs":[7,11],"pkfp":"abab')
    assert document.endswith(b'"}]}\n')
    assert json.loads(document) == {
        "sha256": [
            {
                "pcrs": [7, 11],
                "pkfp": "ab" * 32,
                "pol": "70" * 32,
                "sig": base64.b64encode(b"s" * 256).decode(),
                "version": "0001",
                "purpose": "first",
                "values": ["37" * 32, "62" * 32],
            },
            {
                "pcrs": [11],
                "pkfp": "cd" * 32,
                "pol": "71" * 32,
                "sig": base64.b64encode(b"t" * 256).decode(),
            },
        ]
    }
    assert parse_policies(document) == (GOOD, plain)
    assert parse_policies(document + bytes(512)) == (GOOD, plain)  # a PE section is padded


def test_fingerprint_is_the_one_of_the_der_key() -> None:
    public = rsa_key("tpmpol-luks").public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert policy_key(pem("tpmpol-luks")).fingerprint == hashlib.sha256(der).hexdigest()


def entry(**change: object) -> bytes:
    document = json.loads(render_policies([GOOD]))
    document["sha256"][0] |= change
    return json.dumps(document).encode()


RISING = ("pcrs", "is not a rising list of PCR numbers")
HEX = "is not 64 lower-case hex digits"
SIGNATURE = ("sig", "is not base64 of a signature")
EACH = ("values", "does not have one value for each PCR")
VALUE = ("values", "holds a value that is not 64 hex digits")


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"pcrs": [], "values": []}, [RISING]),
        ({"pcrs": [11, 7]}, [RISING]),
        ({"pcrs": [7, 7]}, [RISING]),
        ({"pcrs": [7, 24]}, [RISING]),
        ({"pcrs": [-1, 7]}, [RISING]),
        ({"pcrs": list(range(9)), "values": []}, [("pcrs", "has more than 8 PCRs")]),
        ({"pkfp": "AB" * 32}, [("pkfp", HEX)]),
        ({"pkfp": "ab" * 33}, [("pkfp", HEX)]),
        ({"pol": "00" * 31}, [("pol", HEX)]),
        ({"pol": "zz" * 32}, [("pol", HEX)]),
        ({"sig": "!!!!"}, [SIGNATURE]),
        ({"sig": "c3Nz\n"}, [SIGNATURE]),
        ({"sig": "c3N"}, [SIGNATURE]),
        ({"sig": "\u00e4"}, [SIGNATURE]),
        ({"sig": ""}, [SIGNATURE]),
        ({"sig": base64.b64encode(bytes(513)).decode()}, [SIGNATURE]),
        ({"version": "1"}, [("version", "is not four digits")]),
        ({"version": ""}, [("version", "is not four digits")]),
        ({"values": ["00" * 32]}, [EACH]),
        ({"values": ["00" * 32] * 3}, [EACH]),
        ({"values": ["00" * 32, "zz"]}, [VALUE]),
        ({"values": ["zz"]}, [EACH, VALUE]),
        (
            {"pcrs": [], "pkfp": "", "pol": "", "values": ["a"], "version": "x", "sig": ""},
            [
                RISING, ("pkfp", HEX), ("pol", HEX), EACH, VALUE,
                ("version", "is not four digits"), SIGNATURE,
            ],
        ),
    ],
)  # fmt: skip
def test_faulty_entries(change: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_policies(entry(**change))
    assert caught.value.name == "signed TPM policies (.pcrsig)"
    found = [(fault.path, fault.line, fault.message) for fault in caught.value.faults]
    assert found == [(f"sha256[0].{key}", 0, message) for key, message in faults]


@pytest.mark.parametrize(
    ("change", "fault"),
    [({"pcrs": "7"}, "pcrs"), ({"purpose": "root"}, "purpose"), ({"extra": 1}, "extra")],
)
def test_entries_of_another_shape(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(DocumentError, match=fault):
        parse_policies(entry(**change))


def test_the_fault_of_a_later_entry_has_its_number() -> None:
    document = json.loads(render_policies([GOOD, GOOD]))
    document["sha256"][1]["pol"] = ""
    with pytest.raises(DocumentError) as caught:
        parse_policies(json.dumps(document).encode())
    assert [fault.path for fault in caught.value.faults] == ["sha256[1].pol"]


def test_the_most_that_an_entry_may_hold() -> None:
    wide = replace(GOOD, pcrs=tuple(range(16, 24)), values=(), signature=b"s" * 512)
    small = replace(GOOD, signature=b"s", purpose="admin", version="9999")
    assert parse_policies(render_policies([wide, small])) == (wide, small)


def test_the_most_that_a_document_may_hold() -> None:
    full = render_policies([GOOD] * 64)
    assert len(parse_policies(full)) == 64
    with pytest.raises(DocumentError) as caught:
        parse_policies(render_policies([GOOD] * 65))
    assert [(fault.path, fault.line, fault.message) for fault in caught.value.faults] == [
        ("sha256", 0, "has more than 64 entries")
    ]
    assert len(parse_policies(b" " * ((256 << 10) - len(full)) + full)) == 64
    with pytest.raises(DocumentError):
        parse_policies(b" " * ((256 << 10) - len(full) + 1) + full)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"sha256":[],"sha1":[]}',
        b'{"sha256":[],"sha256":[]}',
        b'{"sha256":[' + b",".join([b"{}"] * 70) + b"]}",
        b" " * (300 << 10) + b'{"sha256":[]}',
        render_policies([replace(GOOD)] * 65),
    ],
)
def test_faulty_documents(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_policies(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_fault_or_policies(data: bytes) -> None:
    try:
        policies = parse_policies(data)
    except DocumentError:
        return
    assert policies == ()


@given(
    st.lists(
        st.builds(
            SignedPolicy,
            pcrs=st.sets(st.integers(0, 23), min_size=1, max_size=8).map(
                lambda s: tuple(sorted(s))
            ),
            fingerprint=st.binary(min_size=32, max_size=32).map(bytes.hex),
            policy=st.binary(min_size=32, max_size=32),
            signature=st.binary(min_size=1, max_size=512),
            version=st.none() | st.integers(0, 9999).map("{:04}".format),
            purpose=st.sampled_from([None, "first", "second", "admin"]),
        ),
        max_size=5,
    )
)
def test_what_is_rendered_is_parsed(policies: list[SignedPolicy]) -> None:
    assert parse_policies(render_policies(policies)) == tuple(policies)
