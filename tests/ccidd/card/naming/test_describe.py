# SPDX-License-Identifier: Apache-2.0
"""Lines for people, and that nothing secret is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.apdu import CommandAPDU, StatusWord
from ccidd.card.guard.judge import PIN_INSTRUCTIONS
from ccidd.card.guard.selection import Kind, Selected
from ccidd.card.naming import describe, describe_response, describe_status

PIV = Selected(Kind.PIV, bytes.fromhex("A000000308"))
CAC = Selected(Kind.CAC, bytes.fromhex("A0000000790102"))
OPENPGP = Selected(Kind.OPENPGP, bytes.fromhex("D27600012401"))
NOBODY = Selected()


@pytest.mark.parametrize(
    ("selected", "command", "text"),
    [
        (NOBODY, "00A4040009A0000003080000100000", "SELECT A00000030800001000 (PIV) Le=00"),
        (NOBODY, "00A4040005A000000308", "SELECT A000000308 (PIV)"),
        (NOBODY, "00A4040006D27600012401", "SELECT D27600012401 (OpenPGP)"),
        (NOBODY, "00A4040007A0000000790102", "SELECT A0000000790102 (encryption key)"),
        (NOBODY, "00A4040007A0000000790300", "SELECT A0000000790300 (access control applet)"),
        (NOBODY, "00A4040007A0000000790202", "SELECT A0000000790202 (benefits container)"),
        (NOBODY, "00A4040005F000000001", "SELECT F000000001"),
        (NOBODY, "00A4000C023F00", "SELECT file 3F00 (master file)"),
        (CAC, "00A40200020105", "SELECT object 0105 (PKI applet 5)"),
        (NOBODY, "00A40400", "SELECT"),
        (NOBODY, f"00A4040011{'00' * 17}", "SELECT P1=04 P2=00"),
        (NOBODY, "0070000001", "MANAGE CHANNEL open Le=01"),
        (NOBODY, "00708002", "MANAGE CHANNEL close 02"),
        (NOBODY, "0084000008", "GET CHALLENGE Le=08"),
        (NOBODY, "00C0000012", "GET RESPONSE Le=12"),
        (NOBODY, "00E2000103010203", "APPEND RECORD P1=00 P2=01 Nc=3"),
        (NOBODY, "80CA9F7F00", "GET DATA P1=9F P2=7F, CLA 80 Le=00"),
        (NOBODY, "0013000000", "INS 13 P1=00 P2=00 Le=00"),
        (
            PIV,
            "00CB3FFF055C035FC10500",
            "GET DATA 5FC105 (X.509 certificate for PIV authentication) Le=00",
        ),
        (PIV, "00CB3FFF0000035C017E0000", "GET DATA 7E (discovery object) Le=0000"),
        (PIV, "00CB3FFF055C035FC1FF00", "GET DATA 5FC1FF Le=00"),
        (PIV, "00CB3FFF00", "GET DATA ? Le=00"),
        (PIV, "10DB3FFF075C035FC1065300", "PUT DATA 5FC106 (security object), more follows Nc=7"),
        (PIV, "0020008008313233343536FFFF", "VERIFY 80 (application PIN)"),
        (PIV, "00200080", "VERIFY 80 (application PIN), a question"),
        (PIV, "0020FF80", "VERIFY 80 (application PIN), log out"),
        (PIV, "002C008010" + "31" * 16, "RESET RETRY COUNTER 80 (application PIN)"),
        (
            PIV,
            "0087079C0E7C0C82008108000000000000000000",
            "GENERAL AUTHENTICATE 9C (digital signature key), RSA-2048, sign Nc=14 Le=00",
        ),
        (
            PIV,
            "0087119D0E7C0C82008508000000000000000000",
            "GENERAL AUTHENTICATE 9D (key management key), P-256, decrypt Nc=14 Le=00",
        ),
        (
            PIV,
            "00870A9B047C02800000",
            "GENERAL AUTHENTICATE 9B (administration key), AES-192 Nc=4 Le=00",
        ),
        (
            PIV,
            "0047009A05AC0380011100",
            "GENERATE ASYMMETRIC KEY PAIR 9A (PIV authentication key), P-256 Nc=5 Le=00",
        ),
        (PIV, "00F6FF9A", "MOVE KEY 9A (PIV authentication key), deleted"),
        (PIV, "00F69E9C", "MOVE KEY 9C (digital signature key), to 9E (card authentication key)"),
        (PIV, "00F70081", "GET METADATA 81 (PUK)"),
        (PIV, "00F99E00", "ATTEST 9E (card authentication key)"),
        (PIV, "00FA0305", "SET PIN RETRIES PIN 3, PUK 5"),
        (PIV, "00FE149D03060100", "IMPORT ASYMMETRIC KEY 9D (key management key), P-384 Nc=3"),
        (PIV, "00FFFFFF03030203", "SET MANAGEMENT KEY Nc=3"),
        (PIV, "0C20008008313233343536FFFF", "VERIFY 80 (application PIN), secure messaging"),
        (PIV, "0120008008313233343536FFFF", "VERIFY 80 (application PIN), channel 1"),
        (CAC, "80520010020264", "READ BUFFER values from 16"),
        (CAC, "004200000401020304", "PRIVATE SIGN/DECRYPT 0102 (encryption 1 key) Nc=4"),
        (
            CAC,
            "804280000401020304",
            "PRIVATE SIGN/DECRYPT 0102 (encryption 1 key), a piece of the block Nc=4",
        ),
        (CAC, "0020000008313233343536FFFF", "VERIFY 00 (PIN)"),
        (OPENPGP, "00CA006E00", "GET DATA 6E (application related data) Le=00"),
        (OPENPGP, "00CA5F5200", "GET DATA 5F52 (historical bytes) Le=00"),
        (OPENPGP, "00DA00D3083132333435363738", "PUT DATA D3 (resetting code) Nc=8"),
        (OPENPGP, "0020008106313233343536", "VERIFY 81 (PW1)"),
        (OPENPGP, "002A9E9A03010203", "COMPUTE DIGITAL SIGNATURE 1 (signature key) Nc=3"),
        (OPENPGP, "002A808603010203", "DECIPHER 2 (decryption key) Nc=3"),
        (OPENPGP, "0047800002B60000", "GENERATE ASYMMETRIC KEY PAIR signature key Nc=2 Le=00"),
        # Nobody has seen the application selected, but such commands are its own.
        (NOBODY, "0020008008313233343536FFFF", "VERIFY 80 (application PIN)"),
        (NOBODY, "00520000020102", "READ BUFFER tags from 0"),
        (NOBODY, "0020008106313233343536", "VERIFY P1=00 P2=81"),
    ],
)
def test_commands_have_the_names_of_their_specifications(
    selected: Selected, command: str, text: str
) -> None:
    assert describe(CommandAPDU.decode(bytes.fromhex(command)), selected) == text


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("9000", "9000"),
        ("00" * 300 + "9000", "9000, 300 bytes"),
        ("006282", "6282 (the file or record ended before Ne bytes), 1 byte"),
        ("63C2", "63C2 (2 tries left)"),
        ("63C1", "63C1 (1 try left)"),
        ("63C0", "63C0 (no tries left)"),
        ("6110", "6110 (16 bytes more)"),
        ("6100", "6100 (more bytes follow)"),
        ("6C20", "6C20 (Le is to be 20)"),
        ("6A82", "6A82 (file or application not found)"),
        ("6A99", "6A99 (wrong parameters)"),
        ("9110", "9110"),
        ("90", "broken response of 1 byte"),
    ],
)
def test_responses_are_a_status_word_and_a_length(response: str, text: str) -> None:
    assert describe_response(bytes.fromhex(response)) == text


@pytest.mark.parametrize("sw", [sw for sw in StatusWord if sw != StatusWord.SUCCESS])
def test_every_status_word_of_ours_has_a_name(sw: StatusWord) -> None:
    assert "(" in describe_status(sw)


BYTE = st.integers(0, 255)
HEADERS = st.tuples(BYTE, BYTE, BYTE)
SELECTED = st.sampled_from([PIV, CAC, OPENPGP, NOBODY])


@given(HEADERS, st.sampled_from(sorted(PIN_INSTRUCTIONS)), SELECTED, st.data())
def test_nothing_of_a_pin_is_told_not_even_its_length(
    header: tuple[int, int, int], ins: int, selected: Selected, data: st.DataObject
) -> None:
    cla, p1, p2 = header
    pins = [data.draw(st.binary(min_size=1, max_size=64)) for _ in range(2)]
    assert len({describe(CommandAPDU(cla, ins, p1, p2, pin), selected) for pin in pins}) == 1


@given(HEADERS, BYTE, st.binary(min_size=17, max_size=300), SELECTED)
def test_the_data_of_a_command_are_never_told(
    header: tuple[int, int, int], ins: int, data: bytes, selected: Selected
) -> None:
    cla, p1, p2 = header
    described = describe(CommandAPDU(cla, ins, p1, p2, data, ne=256), selected)
    assert described.isprintable()
    assert data[5:].hex() not in described.lower()


@given(st.integers(0, 0xFFFF))
def test_any_status_word_has_a_line(sw: int) -> None:
    assert describe_status(sw).startswith(f"{sw:04X}")
