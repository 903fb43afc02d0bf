# SPDX-License-Identifier: Apache-2.0
"""`ccidd card`, command by command."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from card_command import Command, keys, matches, refused
from ccidd.service.cardkeys import keys_in
from ccidd.service.certificates import authority
from ccidd.service.state import State, StoredMemory
from programs import CCIDD, run_ccidd

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
