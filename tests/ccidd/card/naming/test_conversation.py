# SPDX-License-Identifier: Apache-2.0
"""What was said before tells what an APDU means."""

from hypothesis import given
from hypothesis import strategies as st

from ccidd.card.guard.operations import Operation
from ccidd.card.guard.selection import Kind
from ccidd.card.naming import Conversation, Exchange

SELECT_OPENPGP = "00A4040006D27600012401"
SELECT_PIV = "00A4040009A0000003080000100000"
VERIFY_PW1 = "0020008106313233343536"


def said(conversation: Conversation, command: str, response: str = "9000") -> Exchange:
    return conversation.take(bytes.fromhex(command), bytes.fromhex(response))


def test_the_application_that_is_selected_gives_the_names() -> None:
    conversation = Conversation()
    assert said(conversation, SELECT_OPENPGP).kind is Kind.UNKNOWN
    exchange = said(conversation, VERIFY_PW1, "63C2")
    assert exchange.kind is Kind.OPENPGP
    assert exchange.text == "VERIFY 81 (PW1) → 63C2 (2 tries left)"
    said(conversation, SELECT_PIV, "6A82")
    assert said(conversation, VERIFY_PW1).text == "VERIFY 81 (PW1) → 9000"
    said(conversation, SELECT_PIV)
    assert said(conversation, VERIFY_PW1).text == "VERIFY 81 (PUK) → 9000"


def test_a_reset_ends_what_was_selected() -> None:
    conversation = Conversation()
    said(conversation, SELECT_OPENPGP)
    conversation.forget()
    assert said(conversation, VERIFY_PW1).text == "VERIFY P1=00 P2=81 → 9000"


def test_channels_have_applications_of_their_own() -> None:
    conversation = Conversation()
    said(conversation, SELECT_OPENPGP)
    said(conversation, "01" + SELECT_PIV[2:])
    assert said(conversation, VERIFY_PW1).kind is Kind.OPENPGP
    assert said(conversation, "01" + VERIFY_PW1[2:]).kind is Kind.PIV
    said(conversation, "00708001")
    assert said(conversation, "01" + VERIFY_PW1[2:]).kind is Kind.UNKNOWN


def test_a_chain_is_one_command() -> None:
    conversation = Conversation()
    said(conversation, SELECT_PIV)
    first = said(conversation, "1087079A087C0C820081080000")
    assert first.more_follows
    assert "more follows" in first.text
    last = said(conversation, "0087079A0600000000000000")
    assert not last.more_follows
    assert last.judgement.operations == {Operation.SIGN}
    assert "RSA-2048, sign Nc=14" in last.text


def test_a_later_part_is_named_by_the_first() -> None:
    conversation = Conversation()
    said(conversation, SELECT_PIV)
    said(conversation, "10DB3FFF075C035FC1025300")
    # These bytes would name another object if they were the first.
    for cla in ("10", "00"):
        assert "PUT DATA 5FC102 (card" in said(conversation, cla + "DB3FFF055C035FC105").text


def test_what_comes_after_a_chain_that_was_not_ended_stands_alone() -> None:
    conversation = Conversation()
    said(conversation, "1087079A087C0C820081080000")
    assert said(conversation, "00CB3FFF035C017E").text.startswith("GET DATA 7E")
    assert "Nc=6" in said(conversation, "0087079A0600000000000000").text


def test_a_chain_that_does_not_end_is_forgotten() -> None:
    conversation = Conversation()
    part = "10DB3FFF" + "00FFFF" + "00" * 0xFFFF
    assert said(conversation, part).more_follows
    assert said(conversation, part).more_follows
    assert "Nc=1 " in said(conversation, "00DB3FFF" + "0100").text


def test_broken_commands_and_responses_have_lines_too() -> None:
    conversation = Conversation()
    assert (
        said(conversation, "", "").text == "broken command of 0 bytes → broken response of 0 bytes"
    )
    said(conversation, "10DB3FFF0200")
    text = said(conversation, "0020008008313233", "6700").text
    assert text == "broken command of 8 bytes (INS 20) → 6700 (wrong length)"


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40))))
def test_whatever_is_said_has_lines(exchanges: list[tuple[bytes, bytes]]) -> None:
    conversation = Conversation()
    for command, response in exchanges:
        assert conversation.take(command, response).text.isprintable()
