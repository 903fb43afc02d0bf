# SPDX-License-Identifier: Apache-2.0
"""`ccidd card`, command by command."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    pkcs12,
)

from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.piv.contents import certificate_in, discovery_object
from ccidd.errors import UserError
from ccidd.keys.generated import private_key_pem
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.cardcommand import _parser
from ccidd.service.cardkeys import keys_in
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.certificates import authority
from ccidd.service.state import State, StoredMemory, StoredPin
from crash import CHEAP
from credentials import credential, private_key
from piv import selected
from programs import CCIDD, run_ccidd

P_256, P_384 = KeyAlgorithm.P_256, KeyAlgorithm.P_384

Command = Callable[..., str]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state", cost=CHEAP) as state:
        yield state


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("secretinput", "cardfiles"):
        monkeypatch.setattr(f"ccidd.service.{module}.can_ask", lambda: False)


@pytest.fixture
def card(state: State, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of `ccidd card`, and gives what it prints."""

    def run(*arguments: object) -> str:
        options = _parser().parse_args([str(argument) for argument in arguments])
        options.run(state, options)
        return capsys.readouterr().out

    return run


def refused(card: Command, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        card(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a file with a secret in it."""

    def make(content: str) -> Path:
        path = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"{content}\n")
        path.chmod(0o600)
        return path

    return make


def matches(state: State, name: str, reference: int, value: bytes) -> bool:
    pin = StoredPin(state, state.card(name).guid, reference)
    return trio.run(pin.compare, value.ljust(8, b"\xff"))


def keys(state: State, name: str) -> list[str]:
    stored = keys_in(state.contents(state.card(name).guid))
    return [f"{key.reference:02X} {key.algorithm.value}" for key in stored]


# create


def test_a_new_card_shows_its_pin_once(card: Command, state: State) -> None:
    shown = card("create", "alice")
    (pin,) = re.findall(r"^PIN +(\d{6})$", shown, re.MULTILINE)
    (puk,) = re.findall(r"^PUK +(\d{8})$", shown, re.MULTILINE)
    assert "shown this once" in shown
    assert matches(state, "alice", 0x80, pin.encode())
    assert matches(state, "alice", 0x81, puk.encode())
    assert keys(state, "alice") == ["9A P-256", "9C RSA-2048", "9D RSA-2048"]
    again = card("show", "alice")
    assert pin not in again
    assert puk not in again
    assert "PIN   3 of 3 tries left" in again


def test_a_new_card_in_json(card: Command, state: State) -> None:
    made = json.loads(card("create", "alice", "--key=9E=P-384", "--json"))
    assert matches(state, "alice", 0x80, made["pin"].encode())
    assert matches(state, "alice", 0x81, made["puk"].encode())
    shown = json.loads(card("show", "alice", "--json"))
    assert re.fullmatch(r"[0-9a-f]{48}", made["management_key"])
    del made["pin"], made["puk"], made["management_key"]
    assert shown == made
    (key,) = shown["keys"]
    assert (key["reference"], key["algorithm"]) == ("9E", "P-384")
    assert key["subject"] == key["issuer"] == "CN=alice card authentication"
    assert shown["name"] == "alice"
    assert shown["type"] == "piv"
    assert shown["served_by"] is None
    assert shown["pins"][0] == {
        "reference": "80",
        "name": "PIN",
        "tries_left": 3,
        "max_tries": 3,
    }


def test_pin_and_puk_can_be_chosen(
    card: Command, state: State, secret: Callable[[str], Path]
) -> None:
    pin, puk = secret("4711471"), secret("geheim!!")
    card("create", "alice", "--empty", f"--pin-file={pin}", f"--puk-file={puk}")
    assert matches(state, "alice", 0x80, b"4711471")
    assert matches(state, "alice", 0x81, b"geheim!!")
    assert keys(state, "alice") == []


def test_each_key_certifies_itself_unless_the_authority_does(card: Command, state: State) -> None:
    card("create", "alice", "--key=9A=P-256", "--subject=CN=Alice,O=Us")
    card("create", "bob", "--key=9A=P-256", "--issuer=ca")
    (alice,) = keys_in(state.contents(state.card("alice").guid))
    (bob,) = keys_in(state.contents(state.card("bob").guid))
    assert alice.certificate is not None
    assert bob.certificate is not None
    assert alice.certificate.subject.rfc4514_string() == "CN=Alice,O=Us"
    alice.certificate.verify_directly_issued_by(alice.certificate)
    bob.certificate.verify_directly_issued_by(authority(state)[0])


def test_requests_are_written(card: Command, state: State, tmp_path: Path) -> None:
    card("create", "alice", "--key=9A=P-256", "--key=9D=P-384", f"--csr={tmp_path / 'csr'}")
    for key in keys_in(state.contents(state.card("alice").guid)):
        pem = (tmp_path / f"csr/alice-{key.reference:02X}.csr").read_bytes()
        request = x509.load_pem_x509_csr(pem)
        assert request.is_signature_valid
        assert request.public_key() == key.private_key.public_key()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["default"], "there is a card default already"),
        (["a,b"], "a,b is no name for a card"),
        ([""], "is no name for a card"),
        (["-"], "- is no name for a card"),
        (["x" * 65], "is no name for a card"),
        (["alice", "--key=9B=P-256"], "9B is no key of a piv card; it has 9A, 9C, 9D, 9E"),
        (["alice", "--key=9A"], "--key=9A: '' is none of"),
        (["alice", "--key=9A=P-512"], "'P-512' is none of"),
        (["alice", "--key=9A=P-256", "--empty"], "exclude each other"),
        (["alice", "--subject=Alice"], "--subject=Alice is no name"),
        (["alice", "--pin-file=/dev/null"], "/dev/null is empty"),
        (["alice", "--pin-fd=99"], "--pin-fd=99 cannot be read"),
    ],
)
def test_a_card_that_is_not_made(
    card: Command, state: State, arguments: list[str], message: str
) -> None:
    card("create", "default", "--empty")
    assert message in refused(card, "create", *arguments)
    assert [each.name for each in state.cards()] == ["default"]


def test_a_chosen_pin_that_is_none(card: Command, secret: Callable[[str], Path]) -> None:
    for option, content in (("--pin-file", "12345"), ("--puk-file", "12345")):
        assert "has" in refused(card, "create", "alice", "--empty", f"{option}={secret(content)}")


# list and show


def test_cards_are_listed(card: Command, state: State) -> None:
    card("create", "bob", "--key=9A=P-256", "--key=9E=P-256")
    card("create", "alice", "--empty")
    other = "11111111-2222-5333-8444-555555555555"
    state.note_card(other, "piv")
    state.spend_try(state.card("bob").guid, 0x80)
    lines = [line.split() for line in card("list").splitlines()]
    assert lines[0] == ["NAME", "TYPE", "PIN", "KEYS", "SERVED", "BY", "GUID"]
    assert [line[:-1] for line in lines[1:]] == [
        ["alice", "piv", "3/3", "-", "-"],
        ["bob", "piv", "2/3", "9A", "9E", "-"],
        ["-", "piv", "-", "elsewhere", "-"],
    ]
    listed = json.loads(card("list", "--json"))
    assert [each["name"] for each in listed] == ["alice", "bob", None]
    assert listed[2]["guid"] == other
    assert "GUID " + other in card("show", other)


def test_what_is_served_is_shown_as_such(card: Command, state: State) -> None:
    card("create", "alice", "--empty")
    StoredMemory(state, state.card("alice"))
    assert f"by    process {os.getpid()}\n" in card("show", "alice")
    assert f"process {os.getpid()}" in card("list")
    assert json.loads(card("list", "--json"))[0]["served_by"] == os.getpid()


def test_a_card_that_is_not_there(card: Command) -> None:
    for command in ("show", "unblock", "reset-pin", "export", "change-pin"):
        assert "there is no card default in " in refused(card, command)
        assert "there is no card x in " in refused(card, command, "x")
    assert "there is no card x in " in refused(card, "destroy", "x", "--yes")
    assert "there is no card x in " in refused(card, "import", "x", "file")


# PINs


@pytest.fixture
def alice(card: Command, secret: Callable[[str], Path]) -> str:
    """A card with the PIN 123456 and the PUK 12345678."""
    pin, puk = secret("123456"), secret("12345678")
    card("create", "alice", "--empty", f"--pin-file={pin}", f"--puk-file={puk}")
    return "alice"


def tries(state: State, reference: int) -> int:
    record = state.pin(state.card("alice").guid, reference)
    assert record is not None
    return record.tries_left


def test_the_pin_is_changed(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    old, new = secret("123456"), secret("654321")
    shown = card("change-pin", alice, f"--pin-file={old}", f"--new-pin-file={new}")
    assert "PIN   3 of 3 tries left" in shown
    assert matches(state, alice, 0x80, b"654321")


def test_the_puk_is_changed(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    old, new = secret("12345678"), secret("87654321")
    files = (f"--pin-file={old}", f"--new-pin-file={new}")
    assert "PUK   3 of 3" in card("change-pin", alice, "--which=puk", *files)
    assert matches(state, alice, 0x81, b"87654321")
    assert matches(state, alice, 0x80, b"123456")


def test_a_wrong_pin_costs_a_try_and_a_wrong_new_one_does_not(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    right, wrong, short = (f"--pin-file={secret(pin)}" for pin in ("123456", "111111", "12345"))
    new, no_pin = f"--new-pin-file={secret('654321')}", f"--new-pin-file={secret('6543')}"
    assert "a PIN has 6 to 8 digits" in refused(card, "change-pin", alice, right, no_pin)
    assert "a PIN has 6 to 8 digits" in refused(card, "change-pin", alice, short, new)
    assert tries(state, 0x80) == 3
    for left in (2, 1):
        message = refused(card, "change-pin", alice, wrong, new)
        assert message == f"this is not the PIN; {left} tries are left"
    for pin in (wrong, right):
        message = refused(card, "change-pin", alice, pin, new)
        assert message == "the PIN is blocked; `ccidd card unblock --which=pin` frees it"
    assert not matches(state, alice, 0x80, b"123456")


def test_the_operator_unblocks(card: Command, alice: str, state: State) -> None:
    guid = state.card(alice).guid
    for reference, which in ((0x80, "pin"), (0x81, "puk")):
        while state.spend_try(guid, reference):
            pass
        shown = json.loads(card("unblock", guid, f"--which={which}", "--json"))
        assert shown == {"guid": guid, "tries_left": 3, "max_tries": 3}
    assert matches(state, alice, 0x80, b"123456")
    assert matches(state, alice, 0x81, b"12345678")


def test_the_puk_unblocks(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    guid = state.card(alice).guid
    while state.spend_try(guid, 0x80):
        pass
    new = f"--new-pin-file={secret('654321')}"
    right, wrong = (f"--puk-file={secret(puk)}" for puk in ("12345678", "11111111"))
    message = refused(card, "unblock", alice, "--with-puk", wrong, new)
    assert message == "this is not the PUK; 2 tries are left"
    assert tries(state, 0x80) == 0
    card("unblock", alice, "--with-puk", right, new)
    assert matches(state, alice, 0x80, b"654321")
    assert tries(state, 0x81) == 3
    message = refused(card, "unblock", alice, "--with-puk", "--which=puk", right, new)
    assert "the PUK does not unblock the PUK" in message


def test_a_pin_is_reset_and_shown(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    while state.spend_try(state.card(alice).guid, 0x80):
        pass
    (pin,) = re.findall(r"^PIN +(\d{6})$", card("reset-pin", alice), re.MULTILINE)
    assert matches(state, alice, 0x80, pin.encode())
    puk = json.loads(card("reset-pin", alice, "--which=puk", "--json"))["puk"]
    assert matches(state, alice, 0x81, puk.encode())
    shown = card("reset-pin", alice, f"--new-pin-file={secret('777777')}")
    assert "777777" not in shown
    assert matches(state, alice, 0x80, b"777777")


def test_a_card_without_a_pin_is_given_one(card: Command, state: State) -> None:
    other = "11111111-2222-5333-8444-555555555555"
    state.note_card(other, "piv")
    assert "has no PIN; `ccidd card reset-pin` sets one" in refused(card, "unblock", other)
    pin = json.loads(card("reset-pin", other, "--json"))["pin"]
    assert matches(state, other, 0x80, pin.encode())


def test_a_pin_that_is_kept_elsewhere_is_unblocked_and_not_changed(
    card: Command, state: State, secret: Callable[[str], Path]
) -> None:
    other = "11111111-2222-5333-8444-555555555555"
    state.note_card(other, "piv")
    state.set_max_tries(other, 0x80, 3)
    while state.spend_try(other, 0x80):
        pass
    assert "3 of 3" in card("unblock", other)
    new = f"--new-pin-file={secret('654321')}"
    for command in (["reset-pin"], ["change-pin"], ["unblock", "--with-puk"]):
        assert "kept elsewhere; change it there" in refused(card, *command, other, new)


def test_pins_can_be_changed_while_the_card_is_served(
    card: Command, alice: str, state: State
) -> None:
    served = StoredMemory(state, state.card(alice)).pin(0x80)
    for _ in range(3):
        trio.run(served.compare, b"000000\xff\xff")
    card("unblock", alice)
    assert trio.run(served.compare, b"123456\xff\xff")
    pin = json.loads(card("reset-pin", alice, "--json"))["pin"]
    assert not trio.run(served.compare, b"123456\xff\xff")
    assert trio.run(served.compare, pin.encode() + b"\xff\xff")


# import


def pem(algorithm: KeyAlgorithm, number: int = 0) -> bytes:
    return private_key_pem(private_key(algorithm, number)) + credential(
        algorithm, number
    ).certificate.public_bytes(Encoding.PEM)


def p12(algorithm: KeyAlgorithm, password: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    key, certificate = private_key(algorithm, 0), credential(algorithm).certificate
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return pkcs12.serialize_key_and_certificates(b"name", key, certificate, None, encryption)


@pytest.fixture
def key_files(tmp_path: Path) -> dict[str, Path]:
    contents = {
        "two": pem(P_256) + pem(P_384),
        "third": pem(P_256, 1),
        "p12": p12(P_256, None),
        "encrypted": p12(P_256, b"password"),
        "nothing": b"nothing",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_keys_are_imported_where_there_is_room(
    card: Command, alice: str, state: State, key_files: dict[str, Path]
) -> None:
    card("import", alice, "--key=9d", key_files["two"])
    assert keys(state, alice) == ["9A P-384", "9D P-256"]
    card("import", alice, key_files["third"])
    assert keys(state, alice) == ["9A P-384", "9C P-256", "9D P-256"]
    message = refused(card, "import", alice, "--key=9A", key_files["p12"])
    assert "the card has a key 9A already; --replace" in message
    shown = card("import", alice, "--key=9A", "--replace", key_files["p12"])
    assert "key   9A P-256    CN=test P-256 0" in shown
    stored = keys_in(state.contents(state.card(alice).guid))[0]
    assert stored.certificate == credential(P_256).certificate
    assert stored.private_key.public_key() == private_key(P_256, 0).public_key()


def test_encrypted_files_are_imported(
    card: Command,
    alice: str,
    state: State,
    key_files: dict[str, Path],
    secret: Callable[[str], Path],
) -> None:
    password = f"--password-file={secret('password')}"
    card("import", alice, key_files["encrypted"], password)
    assert keys(state, alice) == ["9A P-256"]
    for options in ([], [f"--password-file={secret('wrong')}"]):
        assert "encrypted" in refused(card, "import", alice, key_files["encrypted"], *options)


def test_a_file_that_cannot_be_imported_changes_nothing(
    card: Command,
    alice: str,
    state: State,
    key_files: dict[str, Path],
) -> None:
    refused(card, "import", alice, key_files["two"], key_files["nothing"])
    message = refused(card, "import", alice, key_files["third"], "--key=9A", "--key=9E")
    assert message == "there is no private key for --key=9E in the files"
    too_many = refused(card, "import", alice, *[key_files["two"]] * 13)
    assert "no room for another key" in too_many
    twice = ("--key=9A", "--key=9A", "--replace", key_files["two"])
    assert "a key 9A already" in refused(card, "import", alice, *twice)
    assert keys(state, alice) == []


def test_a_certificate_that_was_signed_elsewhere_is_imported(
    card: Command, state: State, tmp_path: Path
) -> None:
    """By openssl, from the request that create has written."""
    card("create", "bob", "--key=9A=P-256", f"--csr={tmp_path}")
    card("create", "carol", "--key=9A=P-256")
    for name, subject in (("issuer", "/CN=Issuer"),):
        openssl(
            tmp_path,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    issuer = ("-CA", "issuer.pem", "-CAkey", "issuer.key", "-copy_extensions", "copy")
    openssl(tmp_path, "x509", "-req", "-in", "bob-9A.csr", *issuer, "-out", "bob.pem")
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "issuer.pem").read_bytes() + (tmp_path / "bob.pem").read_bytes())
    assert "no certificate for a key of the card" in refused(card, "import", "carol", chain)
    before = keys_in(state.contents(state.card("bob").guid))[0].private_key.public_key()
    card("import", "bob", chain)
    (key,) = keys_in(state.contents(state.card("bob").guid))
    assert key.certificate is not None
    assert key.certificate.issuer.rfc4514_string() == "CN=Issuer"
    assert key.private_key.public_key() == before


# A CHUID: FASC-N, GUID, expiration date, an empty signature.
CHUID = bytes.fromhex(
    "3019D4E739DA739CED39CE739D836858210842108421C84210C3EB"
    "34100102030405060708090A0B0C0D0E0F1035083230333031323331" + "3E00FE00"
)
DISCOVERY = discovery_object()
KEY_HISTORY = bytes.fromhex("C10101C20100F31A") + b"http://example.test/x.cert" + b"\xfe\x00"


async def object_of(state: State, name: str, tag: str) -> bytes:
    """Reads a data object as a guest would."""
    record = state.card(name)
    served = CARD_TYPES[record.type].make({}, StoredMemory(state, record), ())
    host = await selected(served)
    tags = tlv.encode(0x5C, bytes.fromhex(tag))
    response = await transmit(host, CommandAPDU(0, 0xCB, 0x3F, 0xFF, tags, 65536, extended=True))
    assert response.sw == 0x9000, f"{response.sw:04X}"
    return response.data


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("5FC102", CHUID, tlv.encode(0x53, CHUID)), id="what is inside"),
        pytest.param(("5fc102", tlv.encode(0x53, CHUID), tlv.encode(0x53, CHUID)), id="all of it"),
        pytest.param(("5FC10C", KEY_HISTORY, tlv.encode(0x53, KEY_HISTORY)), id="key history"),
        pytest.param(("7E", DISCOVERY, DISCOVERY), id="discovery object"),
        pytest.param(("7E", DISCOVERY[2:], DISCOVERY), id="what is inside that"),
    ],
)
def test_data_objects_are_imported_as_they_are(
    card: Command, alice: str, state: State, tmp_path: Path, case: tuple[str, bytes, bytes]
) -> None:
    tag, content, expected = case
    file = tmp_path / "object"
    file.write_bytes(content)
    card("import", alice, f"{tag}={file}")
    assert trio.run(object_of, state, alice, tag) == expected


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_certificate_is_imported_as_a_data_object(
    card: Command, alice: str, state: State, tmp_path: Path, encoding: Encoding
) -> None:
    """Of a key that is not on the card, as of a key that was retired."""
    certificate = credential(P_256).certificate
    file = tmp_path / "certificate"
    file.write_bytes(certificate.public_bytes(encoding))
    card("import", alice, f"5FC10D={file}")
    stored = tlv.decode_to_dict(trio.run(object_of, state, alice, "5FC10D"))[0x53]
    assert certificate_in(stored) == certificate


def test_keys_and_data_objects_are_imported_together_or_not_at_all(
    card: Command, alice: str, state: State, key_files: dict[str, Path], tmp_path: Path
) -> None:
    chuid = tmp_path / "chuid"
    chuid.write_bytes(CHUID)
    good = f"5FC102={chuid}"
    biometric = tmp_path / "biometric"
    biometric.write_bytes(DISCOVERY[:-2] + b"\x50\x00")
    for option, message in {
        f"5FC102={key_files['nothing']}": "nothing has no data object 5FC102",
        f"5FC103={tmp_path / 'missing'}": "missing",
        f"7E={chuid}": "chuid has no data object 7E",
        f"7E={key_files['nothing']}": "nothing has no data object 7E",
        f"5E0000={chuid}": "5E0000=",
        f"7E={biometric}": "its PIN usage policy stands for what the card does not have",
        "5FC102=": "5FC102=",
    }.items():
        assert message in refused(card, "import", alice, key_files["third"], good, option)
    assert keys(state, alice) == []
    card("import", alice, key_files["third"], good)
    assert keys(state, alice) == ["9A P-256"]
    assert trio.run(object_of, state, alice, "5FC102") == tlv.encode(0x53, CHUID)


def test_an_empty_file_takes_an_object_away(
    card: Command, state: State, key_files: dict[str, Path], tmp_path: Path
) -> None:
    """As of a retired key whose certificate is not on the card."""
    empty = tmp_path / "empty"
    empty.touch()
    card("create", "bob", "--empty")
    card("import", "bob", "--key=82", key_files["third"], f"5FC10D={empty}")
    with pytest.raises(AssertionError, match="6A82"):
        trio.run(object_of, state, "bob", "5FC10D")
    assert keys(state, "bob") == ["82 P-256"]


def test_the_global_pin_is_set(
    card: Command, alice: str, state: State, secret: Callable[[str], Path]
) -> None:
    """The discovery object that is imported decides whether it is used."""
    assert "has no global PIN; `ccidd card reset-pin --which=global`" in refused(
        card, "unblock", alice, "--which=global"
    )
    shown = card("reset-pin", alice, "--which=global")
    pin = re.search(r"^global PIN (\d+)$", shown, re.MULTILINE)
    assert pin
    assert matches(state, alice, 0x00, pin[1].encode().ljust(8, b"\xff"))
    card(
        *("change-pin", alice, "--which=global"),
        *(f"--pin-file={secret(pin[1])}", f"--new-pin-file={secret('87654321')}"),
    )
    assert matches(state, alice, 0x00, b"87654321")
    assert "global PIN 3 of 3 tries left" in card("show", alice)
    message = refused(card, "unblock", alice, "--which=global", "--with-puk")
    assert "the PUK does not unblock the global PIN" in message
    card("create", "common", "--type=cac", "--empty")
    assert "has no global PIN" in refused(card, "reset-pin", "common", "--which=global")


def test_data_objects_that_are_too_much_for_the_card(
    card: Command, alice: str, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(tlv.encode(0xBC, bytes(140_000)))
    card("import", alice, f"5FC103={large}")
    assert "no room for all" in refused(card, "import", alice, f"5FC108={large}")


def test_a_cac_has_no_data_objects(card: Command, tmp_path: Path) -> None:
    card("create", "common", "--type=cac", "--empty")
    assert "has no PIV data objects" in refused(card, "import", "common", "7E=x")


def openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], check=False, capture_output=True, text=True, cwd=directory
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_while_the_card_is_served(
    card: Command, alice: str, state: State, key_files: dict[str, Path]
) -> None:
    StoredMemory(state, state.card(alice))
    message = refused(card, "import", alice, key_files["third"])
    assert "the card alice is being served by this process already" in message


# export


def test_certificates_are_exported(card: Command, state: State, tmp_path: Path) -> None:
    card("create", "alice", "--key=9A=P-256", "--key=9C=P-384")
    stored = [key.certificate for key in keys_in(state.contents(state.card("alice").guid))]
    assert x509.load_pem_x509_certificates(card("export", "alice").encode()) == stored
    card("export", "alice", "--key=9C", f"--output={tmp_path / 'out.pem'}")
    assert x509.load_pem_x509_certificates((tmp_path / "out.pem").read_bytes()) == stored[1:]
    assert "has no certificate to export" in refused(card, "export", "alice", "--key=9E")
    missing = refused(card, "export", "alice", "--output=/dev/null/out.pem")
    assert "cannot write /dev/null/out.pem" in missing


def test_requests_are_exported(card: Command) -> None:
    card("create", "alice", "--key=9A=P-256", "--subject=CN=Alice")
    request = x509.load_pem_x509_csr(card("export", "alice", "--csr").encode())
    assert request.subject.rfc4514_string() == "CN=Alice"
    exported = card("export", "alice", "--csr", "--key=9A", "--subject=CN=Bob")
    assert x509.load_pem_x509_csr(exported.encode()).subject.rfc4514_string() == "CN=Bob"


def test_the_authority_is_exported(card: Command, state: State) -> None:
    (certificate,) = x509.load_pem_x509_certificates(card("export", "--ca").encode())
    assert certificate == authority(state)[0]
    assert "PRIVATE KEY" not in card("export", "--ca")


# destroy


def test_a_card_is_destroyed(card: Command, alice: str, state: State) -> None:
    card("create", "bob", "--empty")
    card("destroy", alice, "--yes")
    assert [each.name for each in state.cards()] == ["bob"]
    card("create", alice, "--empty")


def test_a_card_that_is_served_is_not_destroyed(card: Command, alice: str, state: State) -> None:
    StoredMemory(state, state.card(alice))
    assert "is being served by" in refused(card, "destroy", alice, "--yes")
    assert state.find_card(alice) is not None


# As a process.


def test_the_commands_as_a_process(tmp_path: Path) -> None:
    state = f"--state-dir={tmp_path / 'state'}"
    for arguments in (["show"], ["list"], ["destroy", "x", "--yes"]):
        early = run_ccidd("card", *arguments, state)
        assert early.returncode == 1
        assert early.stderr.startswith("ccidd: there is no card in ")
        assert early.stderr.count("\n") == 1
    assert not (tmp_path / "state").exists()
    made = run_ccidd("card", "create", "alice", "--key=9A=P-256", "--json", state)
    assert json.loads(made.stdout)["name"] == "alice"
    assert made.stderr.count("event=state_key_made") == 1
    shown = run_ccidd("card", "list", "--json", state)
    assert (shown.stderr, len(json.loads(shown.stdout))) == ("", 1)
    unasked = run_ccidd("card", "destroy", "alice", state)
    assert unasked.returncode == 1
    assert unasked.stderr == "ccidd: there is no terminal to ask on; give --yes if you mean it\n"


def test_a_new_state_can_be_made_by_several_at_once(tmp_path: Path) -> None:
    state = f"--state-dir={tmp_path / 'state'}"
    processes = [
        subprocess.Popen(
            [*CCIDD, "card", "create", name, "--empty", state],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("alice", "bob", "carol", "dave")
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert sum(error.count("event=state_key_made") for _output, error in said) == 1
    listed = json.loads(run_ccidd("card", "list", "--json", state).stdout)
    assert [each["name"] for each in listed] == ["alice", "bob", "carol", "dave"]


def test_a_state_key_of_one_s_own(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    state = f"--state-dir={tmp_path / 'state'}"
    made = run_ccidd("card", "create", "alice", "--empty", state, f"--state-key-file={key}")
    assert (made.returncode, made.stderr) == (0, "")
    assert run_ccidd("card", "list", state).returncode == 1
    key.rename(tmp_path / "ccidd.state-key")
    with_credential: Any = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert run_ccidd("card", "list", state, **with_credential).returncode == 0
