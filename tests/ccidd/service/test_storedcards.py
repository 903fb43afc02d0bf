# SPDX-License-Identifier: Apache-2.0
"""Cards that ccidd keeps, of each kind, from `ccidd card create` to their use and change."""

import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cards import transmit
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccidd.card.card import Card
from ccidd.card.piv.management_key import ManagementAlgorithm, ManagementKey
from ccidd.errors import UserError
from ccidd.service.cardcommand import _parser
from ccidd.service.cardkeys import keys_in
from ccidd.service.cards import open_card
from ccidd.service.options import parse_card
from ccidd.service.state import State
from crash import CHEAP

MANAGEMENT_KEY = "0f" * 24
PIV, CCC = "A00000030800001000", "A000000116DB00"


@pytest.fixture
def create(state: State, tmp_path: Path) -> Callable[..., None]:
    for name, content in (("pin", "123456"), ("admin", MANAGEMENT_KEY)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)

    def run(*arguments: str) -> None:
        secrets = (f"--pin-file={tmp_path}/pin", f"--management-key-file={tmp_path}/admin")
        options = _parser().parse_args(["create", "alice", *arguments, *secrets])
        options.run(state, options)

    return run


async def select(card: Card, aid: str) -> int:
    command = CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex(aid), 256)
    return (await transmit(card, command)).sw


async def get_object(card: Card, tag: str) -> ResponseAPDU:
    tag_list = tlv.encode(0x5C, bytes.fromhex(tag))
    return await transmit(card, CommandAPDU(0, 0xCB, 0x3F, 0xFF, tag_list, 65536, extended=True))


async def authenticate_administrator(card: Card) -> int:
    key = ManagementKey(ManagementAlgorithm.AES_192, bytes.fromhex(MANAGEMENT_KEY))
    ask = tlv.encode(0x7C, tlv.encode(0x81))
    challenge = (await transmit(card, CommandAPDU(0, 0x87, key.algorithm, 0x9B, ask, 256))).data[4:]
    answer = tlv.encode(0x7C, tlv.encode(0x82, key.encrypt(challenge)))
    return (await transmit(card, CommandAPDU(0, 0x87, key.algorithm, 0x9B, answer))).sw


async def test_a_guest_changes_a_piv_card_for_good(
    state: State, tmp_path: Path, create: Callable[..., None]
) -> None:
    create("--key=9A=P-256")
    guid = uuid.UUID(state.card("alice").guid)
    card = open_card(parse_card("piv,card=alice"), state)
    await card.power_on()
    assert await select(card, PIV) == 0x9000
    assert guid.bytes in (await get_object(card, "5FC102")).data
    before = (await get_object(card, "5FC105")).data
    generate = CommandAPDU(0, 0x47, 0, 0x9C, bytes.fromhex("AC03800111"), 256)
    assert (await transmit(card, generate)).sw == 0x6982
    assert await authenticate_administrator(card) == 0x9000
    assert (await transmit(card, generate)).sw == 0x9000
    assert [f"{key.reference:02X}" for key in keys_in(state.contents(str(guid)))] == ["9A", "9C"]
    change = CommandAPDU(0, 0x24, 0, 0x80, b"123456\xff\xff777777\xff\xff")
    assert (await transmit(card, change)).sw == 0x9000
    state.resources.close()
    with State(tmp_path / "state", cost=CHEAP) as again:
        card = open_card(parse_card("piv,card=alice"), again)
        await card.power_on()
        assert await select(card, PIV) == 0x9000
        assert (await get_object(card, "5FC105")).data == before
        verify = CommandAPDU(0, 0x20, 0, 0x80, b"777777\xff\xff")
        assert (await transmit(card, verify)).sw == 0x9000


def test_the_administration_key_is_reset(
    state: State,
    tmp_path: Path,
    create: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    create("--empty")
    capsys.readouterr()

    def reset(*arguments: str) -> str:
        options = _parser().parse_args(["reset-management-key", "alice", *arguments])
        options.run(state, options)
        return capsys.readouterr().out

    (shown,) = re.findall(r"^admin ([0-9a-f]{48})$", reset(), re.MULTILINE)
    assert shown != MANAGEMENT_KEY
    assert re.search(
        r"^admin [0-9a-f]{64}$", reset("--management-key-algorithm=AES-256"), re.MULTILINE
    )
    # Without a choice it is for what the one before was for.
    assert re.search(r"^admin [0-9a-f]{64}$", reset(), re.MULTILINE)
    given = (f"--management-key-file={tmp_path}/admin", "--management-key-algorithm=AES-192")
    assert MANAGEMENT_KEY not in reset(*given, "--json")
    card = open_card(parse_card("piv,card=alice"), state)

    async def use() -> None:
        await card.power_on()
        assert await select(card, PIV) == 0x9000
        assert await authenticate_administrator(card) == 0x9000

    trio.run(use)
    with pytest.raises(UserError, match="is being served by"):
        reset()


async def test_a_cac_is_kept(state: State, create: Callable[..., None]) -> None:
    create("--type=cac", "--key=9A=RSA-2048", "--key=82=P-256")
    card = open_card(parse_card("cac,card=alice"), state)
    await card.power_on()
    assert await select(card, CCC) == 0x9000
    assert await select(card, PIV) == 0x6A82
    for number, sw in ((0, 0x9000), (1, 0x9000), (2, 0x6A82)):
        assert await select(card, f"A0000000790{0x100 + number:X}") == sw
    verify = CommandAPDU(0, 0x20, 0, 0x00, b"123456\xff\xff")
    assert (await transmit(card, verify)).sw == 0x9000


async def test_a_card_that_is_both_is_kept(state: State, create: Callable[..., None]) -> None:
    create("--type=piv+cac", "--key=9A=RSA-2048", "--key=9C=P-256")
    card = open_card(parse_card("piv+cac,card=alice,vendor-extensions=on"), state)
    await card.power_on()
    assert await select(card, CCC) == 0x9000
    assert await select(card, "A0000000790100") == 0x9000
    assert await select(card, PIV) == 0x9000
    assert (await get_object(card, "5FC105")).sw == 0x9000
    assert (await transmit(card, CommandAPDU(0, 0xFD, 0, 0, ne=256))).sw == 0x9000


async def test_the_extensions_are_an_option(state: State, create: Callable[..., None]) -> None:
    create("--empty")
    card = open_card(parse_card("piv,card=alice"), state)
    await card.power_on()
    assert await select(card, PIV) == 0x9000
    assert (await transmit(card, CommandAPDU(0, 0xFD, 0, 0, ne=256))).sw == 0x6D00


def test_a_cac_needs_a_key(state: State, create: Callable[..., None]) -> None:
    create("--type=cac", "--empty")
    with pytest.raises(UserError, match="a CAC has 1 to 16 keys"):
        open_card(parse_card("cac,card=alice"), state)


def test_a_card_is_of_one_kind(state: State, create: Callable[..., None]) -> None:
    create("--type=cac", "--key=9A=P-256")
    with pytest.raises(UserError, match="the card alice is cac, not piv"):
        open_card(parse_card("piv,card=alice"), state)


def test_what_is_no_administration_key(
    tmp_path: Path, create: Callable[..., None], state: State
) -> None:
    for content in ("00", "0f" * 23, "xx" * 24, "0f" * 24 + "0"):
        (tmp_path / "admin").write_text(content)
        with pytest.raises(UserError, match="AES-192 has 48 hexadecimal digits"):
            create("--empty")
    assert state.cards() == []
