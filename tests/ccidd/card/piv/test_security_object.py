# SPDX-License-Identifier: Apache-2.0
"""The issuer's signatures, verified by OpenSSL (NIST SP 800-73-4, part 1, 3.1.2.1 and 3.1.7)."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ccid_protocol import tlv
from ccidd.card.piv.objects import CONTAINERS
from ccidd.keys.key import KeyAlgorithm
from piv import PivHost, administered, inserted, new_memory

CHUID_OBJECT = "2.16.840.1.101.3.6.1"
LDS_OBJECT = "1.3.27.1.1.1"
UNWRAPPED = {0x7E, 0x7F61}


def openssl(*arguments: str | Path) -> str:
    command = ["openssl", "cms", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verify(signature: bytes, signer: x509.Certificate, directory: Path, *more: str | Path) -> bytes:
    """Has OpenSSL verify a signature; gives what it covers."""
    paths = {name: directory / name for name in ("signature", "signer", "content")}
    paths["signature"].write_bytes(signature)
    paths["signer"].write_bytes(signer.public_bytes(Encoding.PEM))
    openssl(
        "-verify", "-binary", "-inform", "DER", "-in", paths["signature"], "-purpose", "any",
        "-CAfile", paths["signer"], "-certfile", paths["signer"], "-out", paths["content"], *more,
    )  # fmt: skip
    return paths["content"].read_bytes()


async def chuid_of(host: PivHost) -> dict[int, bytes]:
    return tlv.decode_to_dict(await host.get_object(0x5FC102))


async def signer_of(host: PivHost, directory: Path) -> x509.Certificate:
    """The only certificate in the CHUID's signature."""
    signature, pem = directory / "chuid", directory / "certificates"
    signature.write_bytes((await chuid_of(host))[0x3E])
    openssl("-cmsout", "-noout", "-inform", "DER", "-in", signature, "-certsout", pem)
    (certificate,) = x509.load_pem_x509_certificates(pem.read_bytes())
    return certificate


async def test_the_chuid_is_signed(tmp_path: Path) -> None:
    host = await inserted()
    chuid = await chuid_of(host)
    content = tmp_path / "chuid_content"
    content.write_bytes(
        b"".join(tlv.encode(tag, value) for tag, value in chuid.items() if tag != 0x3E)
    )
    signer = await signer_of(host, tmp_path)
    verify(chuid[0x3E], signer, tmp_path, "-content", content)
    usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in usage] == ["2.16.840.1.101.3.6.7"]
    expires = signer.not_valid_after_utc
    assert expires.strftime("%Y%m%d").encode() == chuid[0x35]


async def test_what_was_signed_does_not_change(tmp_path: Path) -> None:
    host = await inserted()
    for tag in (0x5FC102, 0x5FC106):
        assert await host.get_object(tag) == await host.get_object(tag)


async def test_the_signatures_have_the_form_that_the_standard_asks_for(tmp_path: Path) -> None:
    host = await inserted()
    path = tmp_path / "signature"
    security_object = tlv.decode_to_dict(await host.get_object(0x5FC106))
    for signature, content_type, certificates in (
        ((await chuid_of(host))[0x3E], CHUID_OBJECT, True),
        (security_object[0xBB], LDS_OBJECT, False),
    ):
        path.write_bytes(signature)
        text = openssl("-cmsout", "-print", "-noout", "-inform", "DER", "-in", path)
        assert "pkcs7-signedData (1.2.840.113549.1.7.2)" in text
        assert "d.signedData: \n    version: 3\n" in text
        assert f"eContentType: undefined ({content_type})" in text
        assert text.count("contentType (1.2.840.113549.1.9.3)") == 1
        assert text.count("messageDigest (1.2.840.113549.1.9.4)") == 1
        assert text.count("undefined (2.16.840.1.101.3.6.5)") == 1
        assert ("certificates:\n      <ABSENT>" in text) is not certificates
        assert "crls:\n      <ABSENT>" in text
        assert ("eContent: <ABSENT>" in text) is certificates


async def hashes_in(host: PivHost, directory: Path) -> dict[int, bytes]:
    """What the security object says of each container."""
    fields = tlv.decode_to_dict(await host.get_object(0x5FC106))
    assert list(fields) == [0xBA, 0xBB, 0xFE]
    content = verify(fields[0xBB], await signer_of(host, directory), directory)
    mapping = {
        fields[0xBA][i]: int.from_bytes(fields[0xBA][i + 1 : i + 3])
        for i in range(0, len(fields[0xBA]), 3)
    }
    (lds,) = tlv.decode(content)
    version, algorithm, groups = tlv.decode(lds.value)
    assert (version.tag, version.value) == (0x02, b"\0")
    assert algorithm.value == bytes.fromhex("0609608648016503040201")
    found = {}
    for group in tlv.decode(groups.value):
        number, digest = tlv.decode(group.value)
        found[mapping.pop(number.value[0])] = digest.value
    assert not mapping
    return found


async def test_the_security_object_has_the_hashes_of_what_is_on_the_card(tmp_path: Path) -> None:
    host = await administered(vendor_extensions=True)
    await host.verify()
    written = {tag: bytes([i]) * 10 for i, tag in enumerate(CONTAINERS) if tag not in UNWRAPPED}
    del written[0x5FC106]
    for tag, content in written.items():
        assert await host.put_object(tag, content) == 0x9000
        if tag == 0x5FC102:
            # The CHUID has the signer's certificate; the card's own must stay to be verified with.
            assert await host.put_object(tag, b"") == 0x9000
            await host.memory.store({"piv/object/5FC102": None})
    assert await host.sw(0xDB, 0x3F, 0xFF, bytes.fromhex("7F6103020100")) == 0x9000
    found = await hashes_in(host, tmp_path)
    for tag, container in CONTAINERS.items():
        if not container.hashed:
            assert container.identifier not in found
            continue
        response = await host.get_data(tag)
        content = response.data if tag in UNWRAPPED else await host.get_object(tag)
        assert found.pop(container.identifier) == hashlib.sha256(content).digest()
    assert not found


async def test_the_security_object_follows_each_change(tmp_path: Path) -> None:
    host = await administered(vendor_extensions=True)
    before = await hashes_in(host, tmp_path)
    assert set(before) == {0xDB00, 0x3000, 0x6050}
    assert await host.put_object(0x5FC109, b"\1\0") == 0x9000
    await host.generate(0x82, KeyAlgorithm.P_256)
    after = await hashes_in(host, tmp_path)
    assert after == {
        **before,
        0x3001: hashlib.sha256(b"\1\0").digest(),
        0x6060: hashlib.sha256(await host.get_object(0x5FC10C)).digest(),
    }
    assert await host.put_object(0x5FC109, b"") == 0x9000
    assert set(await hashes_in(host, tmp_path)) == {0xDB00, 0x3000, 0x6050, 0x6060}


async def test_without_an_issuer_nothing_is_signed() -> None:
    memory = new_memory()
    await memory.store({"piv/content-signing-key": None})
    host = await inserted(memory=memory)
    assert (await host.get_data(0x5FC106)).sw == 0x6A82
    assert (await chuid_of(host))[0x3E] == b""


async def test_a_security_object_that_was_put_is_the_administrators() -> None:
    host = await administered()
    assert await host.put_object(0x5FC106, b"\xba\0\xbb\0\xfe\0") == 0x9000
    assert await host.get_object(0x5FC106) == b"\xba\0\xbb\0\xfe\0"


@pytest.mark.parametrize("tag", [0x5FC102, 0x5FC106])
async def test_the_signed_objects_fit_their_containers(tag: int) -> None:
    # SP 800-73-5, part 1, table 7.
    capacity = {0x5FC102: 2881, 0x5FC106: 1336}
    assert len(await (await inserted()).get_object(tag)) <= capacity[tag]
