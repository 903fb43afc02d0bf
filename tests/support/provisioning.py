# SPDX-License-Identifier: Apache-2.0
"""Whole provisioning runs, step by step as a person does them, with the usual clients.

A run begins with an empty card that has the extensions. What clients cannot do, in which version,
docs/piv.md says; the runs do without it.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PublicFormat,
    pkcs12,
)

from ccidd.keys.generated import (
    certificate_builder,
    issued_certificate,
    key_usage,
    private_key_pem,
    signature_hash,
)
from ccidd.keys.key import KeyAlgorithm, PublicKey
from ccidd.service.certificates import common_name
from clients import AFTER_RESET, PivTool, Secrets, Shell, YubicoPivTool
from credentials import private_key
from programs import run_ccidd

_WRONG_PIN: Final = "000000"
_WRONG_PUK: Final = "00000000"

_ALGORITHMS: Final = {"3DES": "03", "AES-192": "0A"}

PRINTED_INFORMATION: Final = bytes.fromhex("530701024142FE0000")
"""A name of two letters (SP 800-73-4, part 1, table 11, more or less)."""


@cache
def authority_key() -> ec.EllipticCurvePrivateKey:
    """The key of who issues the cards' certificates."""
    key = private_key(KeyAlgorithm.P_256, 7)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@cache
def authority() -> x509.Certificate:
    """Who issues the cards' certificates."""
    key, name = authority_key(), common_name("test authority")
    return (
        certificate_builder(key.public_key(), name, name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, signature_hash(key))
    )


def empty_card(state: Path, algorithm: str) -> Secrets:
    """Makes a card named `alice` without keys, as `docs/cards.md` has it.

    Args:
        state: the state directory.
        algorithm: of the administration key.
    """
    options = ("--empty", f"--management-key-algorithm={algorithm}", "--json")
    made = run_ccidd("card", "create", "alice", *options, f"--state-dir={state}")
    assert made.returncode == 0, made.stderr
    shown = json.loads(made.stdout)
    return Secrets(shown["pin"], shown["puk"], shown["management_key"], _ALGORITHMS[algorithm])


def certificate_for(key: PublicKey, name: str) -> x509.Certificate:
    """A certificate that lets clients do all that the key can."""
    is_rsa = isinstance(key, rsa.RSAPublicKey)
    usage = key_usage(digital_signature=True, key_encipherment=is_rsa, key_agreement=not is_rsa)
    return issued_certificate(
        key,
        common_name(name),
        usage,
        issuer=authority().subject,
        issuer_key=authority_key(),
    )


async def provision_with_yubico_piv_tool(
    shell: Shell, secrets: Secrets
) -> tuple[Secrets, dict[str, x509.Certificate]]:
    """Does all that the tool offers but to reset the card.

    Returns:
        What then opens the card, and its certificates by OpenSC's numbers.
    """
    tool = YubicoPivTool(shell, secrets)
    assert "Application version 5.7.0" in await tool.run("version")
    certificates = {
        "9a": certificate_for(await tool.generate("9a", "ECCP256"), "authentication"),
        "9c": certificate_for(await tool.generate("9c", "RSA2048"), "signature"),
        "9e": certificate_for(await tool.generate("9e", "ECCP384", "--pin-policy=never"), "card"),
    }
    imported = private_key(KeyAlgorithm.RSA_2048, 1)
    await tool.as_administrator("import-key", "--slot=9d", given=private_key_pem(imported))
    certificates["9d"] = certificate_for(imported.public_key(), "key-management")
    for slot, certificate in certificates.items():
        await tool.import_certificate(slot, certificate)
    await _import_pkcs12(shell, tool, "82")
    await _use_with_yubico_piv_tool(tool, certificates)
    await _attest(tool, certificates["9a"])
    await _write_objects(tool)
    await tool.set_management_key("a1b2c3d4e5f60718" + "1f2e3d4c5b6a7988" + "0123456789abcdef")
    await _change_pins(tool)
    status = await tool.run("status")
    for slot, certificate in certificates.items():
        # The tool shows the name in its own way.
        name = certificate.subject.rfc4514_string()
        assert re.search(rf"Slot {slot}:\s+Algorithm:.*\n\s+Subject DN:\s+{name}\n", status)
    numbers = {"9a": "01", "9c": "02", "9d": "03", "9e": "04"}
    return tool.secrets, {numbers[slot]: found for slot, found in certificates.items()}


async def _import_pkcs12(shell: Shell, tool: YubicoPivTool, slot: str) -> None:
    """Imports a key and its certificate at once, and deletes the certificate again."""
    key = private_key(KeyAlgorithm.P_384, 1)
    certificate = certificate_for(key.public_key(), "retired")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    encryption = BestAvailableEncryption(b"secret")
    file = pkcs12.serialize_key_and_certificates(b"retired", key, certificate, None, encryption)
    await shell.write("retired.p12", file)
    await tool.as_administrator(
        "import-key",
        "--action=import-certificate",
        *("--key-format=PKCS12", "--password=secret", "--input=retired.p12", f"--slot={slot}"),
    )
    assert await tool.certificate(slot) == certificate
    await tool.as_administrator("delete-certificate", f"--slot={slot}")
    assert "Failed fetching certificate" in await tool.run(
        "read-certificate", f"--slot={slot}", status=1
    )


async def _use_with_yubico_piv_tool(
    tool: YubicoPivTool, certificates: Mapping[str, x509.Certificate]
) -> None:
    for slot, certificate in certificates.items():
        pem = certificate.public_bytes(Encoding.PEM)
        signed = await tool.as_cardholder("test-signature", f"--slot={slot}", given=pem)
        assert re.search(r"Successful (ECDSA|RSA) verification", signed)
    pem = certificates["9d"].public_bytes(Encoding.PEM)
    decrypted = await tool.as_cardholder("test-decipher", "--slot=9d", given=pem)
    assert "Successfully performed RSA decryption" in decrypted


async def _attest(tool: YubicoPivTool, certificate: x509.Certificate) -> None:
    attestation = await tool.certificate("9a", "attest")
    assert attestation.public_key() == certificate.public_key()
    attestation.verify_directly_issued_by(await tool.certificate("f9"))
    # This one was imported.
    await tool.run("attest", "--slot=9d", status=1)


async def _write_objects(tool: YubicoPivTool) -> None:
    before = await tool.run("status")
    await tool.as_administrator("set-chuid", "--action=set-ccc")
    after = await tool.run("status")
    for name in ("CHUID", "CCC"):
        values = [re.findall(rf"{name}:\s+(\S+)", shown) for shown in (before, after)]
        assert len(values[0]) == len(values[1]) == 1
        assert values[0] != values[1]
    # It has to be chained, and is longer than what a reader may carry at once.
    content = bytes(range(256)) * 8
    named = "--id=0x5f0001"
    await tool.as_administrator("write-object", named, "--format=binary", given=content)
    assert (await tool.run("read-object", named)).strip() == content.hex()


async def _change_pins(tool: YubicoPivTool) -> None:
    secrets = Secrets("246810", "86420975", tool.secrets.management_key, tool.secrets.algorithm)
    await tool.change("change-puk", tool.secrets.puk, secrets.puk)
    await tool.change("change-pin", tool.secrets.pin, "135791")
    for left in (2, 1):
        said = await tool.run("verify-pin", f"--pin={_WRONG_PIN}", status=1)
        assert f"{left} tries left" in said
    said = await tool.run("verify-pin", f"--pin={_WRONG_PIN}", status=1)
    assert "blocked" in said
    await tool.change("unblock-pin", secrets.puk, secrets.pin)
    tool.secrets = secrets
    assert "Successfully verified PIN" in await tool.run("verify-pin", f"--pin={secrets.pin}")


async def provision_with_a_newer_yubico_piv_tool(shell: Shell, secrets: Secrets) -> Secrets:
    """Does what version 2.2.0 cannot, and leaves no key behind.

    Returns:
        What then opens the card.
    """
    tool = YubicoPivTool(shell, secrets)
    for algorithm in ("ECCP384", "RSA3072", "ED25519"):
        key = await tool.generate("9c", algorithm)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        who = ("--slot=9c", "--subject=/CN=alice/")
        await tool.as_cardholder("selfsign-certificate", *who, "--output=self.pem", given=pem)
        certificate = x509.load_pem_x509_certificate(await shell.read("self.pem"))
        certificate.verify_directly_issued_by(certificate)
        await tool.import_certificate("9c", certificate)
        await tool.as_cardholder("request-certificate", *who, "--output=request.pem", given=pem)
        request = x509.load_pem_x509_csr(await shell.read("request.pem"))
        assert request.is_signature_valid
        assert request.public_key() == certificate.public_key() == key
    await tool.generate("9d", "X25519")
    attested = (await tool.certificate("9c", "attest")).public_key()
    await tool.as_administrator("move-key", "--slot=9c", "--to-slot=95")
    assert (await tool.certificate("95", "attest")).public_key() == attested
    for slot in ("95", "9d"):
        await tool.as_administrator("delete-key", f"--slot={slot}")
        await tool.run("attest", f"--slot={slot}", status=1)
    for algorithm, size in (("AES128", 16), ("AES192", 24), ("AES256", 32), ("TDES", 24)):
        await tool.set_management_key(
            bytes(range(1, 1 + size)).hex(), f"--new-key-algo={algorithm}"
        )
    return tool.secrets


async def reset_with_yubico_piv_tool(shell: Shell, secrets: Secrets) -> None:
    """Sets the numbers of tries, blocks PIN and PUK, and has the card reset itself."""
    tool = YubicoPivTool(shell, secrets)
    assert "are pincodes blocked" in await tool.run("reset", status=1)
    await tool.as_administrator(
        "verify-pin",
        "--action=pin-retries",
        *(f"--pin={secrets.pin}", "--pin-retries=2", "--puk-retries=1"),
    )
    for left in ("1 tries left", "blocked"):
        assert left in await tool.run("verify-pin", f"--pin={_WRONG_PIN}", status=1)
    await tool.change("unblock-pin", _WRONG_PUK, "123456", status=1)
    assert "Successfully reset" in await tool.run("reset")
    tool.secrets = AFTER_RESET
    status = await tool.run("status")
    assert "Slot" not in status
    assert re.search(r"PIN tries left:\s+3\n", status)
    assert "Successfully verified PIN" in await tool.as_cardholder("version")


async def provision_with_piv_tool(shell: Shell, secrets: Secrets) -> dict[str, x509.Certificate]:
    """Makes keys, and puts certificates and an object on the card, with OpenSC's own tool.

    Returns:
        The certificates by OpenSC's numbers.
    """
    tool = PivTool(shell, secrets)
    assert "Personal Identity Verification Card" in await tool.run("--name")
    assert re.search(r"^([0-9A-F]{2} ){16}", await tool.run("--serial"), re.MULTILINE)
    certificates = {}
    for number, reference, algorithm in (("01", 0x9A, 0x11), ("04", 0x9E, 0x14)):
        key = await tool.generate(reference, algorithm)
        certificates[number] = certificate_for(key, f"key{number}")
        await tool.import_certificate(f"{reference:02X}", certificates[number])
    await tool.put_object("3001", PRINTED_INFORMATION)
    read = ("--read-object", "--type=data", "--label=Printed Information")
    login = ("--login", f"--pin={secrets.pin}")
    await shell.run("pkcs11-tool", *read, *login, "--output-file=object")
    assert await shell.read("object") == PRINTED_INFORMATION
    return certificates


async def change_pins_with_opensc(shell: Shell, secrets: Secrets) -> Secrets:
    """Changes PIN and PUK, blocks the PIN and unblocks it, with pkcs15-tool and pkcs11-tool.

    Returns:
        What then opens the card.
    """
    pin, puk = "975310", "01234567"

    async def pkcs15_tool(*arguments: str, status: int = 0) -> str:
        return await shell.run("pkcs15-tool", *arguments, status=status)

    await pkcs15_tool("--change-pin", "--auth-id=02", f"--pin={secrets.puk}", f"--new-pin={puk}")
    await pkcs15_tool("--change-pin", "--auth-id=01", f"--pin={secrets.pin}", f"--new-pin={pin}")
    for _ in range(3):
        said = await pkcs15_tool("--verify-pin", "--auth-id=01", f"--pin={_WRONG_PIN}", status=255)
    said = await pkcs15_tool("--verify-pin", "--auth-id=01", f"--pin={pin}", status=255)
    assert "blocked" in said
    await pkcs15_tool("--unblock-pin", "--auth-id=01", f"--puk={puk}", "--new-pin=112233")
    changed = await shell.run(
        *("pkcs11-tool", "--login", "--pin=112233", "--change-pin", f"--new-pin={pin}")
    )
    assert "PIN successfully changed" in changed
    await pkcs15_tool("--verify-pin", "--auth-id=01", f"--pin={pin}")
    return Secrets(pin, puk, secrets.management_key, secrets.algorithm)
