# SPDX-License-Identifier: Apache-2.0
from functools import reduce
from operator import xor

import pytest

from ccid_protocol.atr import ATR, InterfaceBytes
from ccid_protocol.ccid import (
    ChainParameter,
    DataBlock,
    Escape,
    IccPowerOn,
    IccStatus,
    LevelParameter,
    Parameters,
    T1Parameters,
    XfrBlock,
)
from ccidd.service.trace.censor import Censor

PIN = b"123456\xff\xff"
VERIFY = bytes.fromhex("0020008008") + PIN
MASKED_VERIFY = VERIFY[:5] + b"*" * 8
SIGN = bytes.fromhex("0087079D067C048200810100")
OK = b"\x90\x00"


def sent(censor: Censor, data: bytes, level: int = LevelParameter.WHOLE) -> bytes:
    shown = censor.command(XfrBlock(0, 0, data, level=level))
    assert isinstance(shown, XfrBlock)
    return shown.data


def answered(censor: Censor, data: bytes, chain: int = ChainParameter.WHOLE) -> bytes:
    shown = censor.response(DataBlock(0, 0, IccStatus.ACTIVE, data=data, chain=chain))
    assert isinstance(shown, DataBlock)
    return shown.data


def block(pcb: int, information: bytes) -> bytes:
    raw = bytes([0, pcb, len(information)]) + information
    return raw + bytes([reduce(xor, raw)])


@pytest.fixture
def censor() -> Censor:
    return Censor(tpdu=False)


@pytest.fixture
def blocks() -> Censor:
    censor = Censor(tpdu=True)
    censor.response(Parameters(0, 0, IccStatus.ACTIVE, T1Parameters()))
    return censor


@pytest.mark.parametrize("cla", ["00", "10", "0C", "80", "01"])
@pytest.mark.parametrize("ins", ["20", "21", "24", "25", "2C", "2D", "DB", "FE", "FF", "C2", "D8"])
def test_what_brings_a_pin_or_a_key_is_masked(censor: Censor, cla: str, ins: str) -> None:
    header = bytes.fromhex(f"{cla}{ins}008008")
    assert sent(censor, header + PIN) == header + b"*" * 8
    assert answered(censor, OK) == OK


def test_an_extended_length_does_not_show_more(censor: Censor) -> None:
    assert sent(censor, bytes.fromhex("00200080000008") + PIN) == VERIFY[:4] + b"\0" + b"*" * 10


def test_what_is_no_secret_is_shown(censor: Censor) -> None:
    select = bytes.fromhex("00A4040009A00000030800001000")
    assert sent(censor, select) == select
    assert answered(censor, b"properties" + OK) == b"properties" + OK


def test_a_secret_result_is_masked_and_so_is_the_rest_of_it(censor: Censor) -> None:
    assert sent(censor, SIGN) == SIGN
    assert answered(censor, b"secret\x61\x03") == b"******\x61\x03"
    sent(censor, bytes.fromhex("00C0000003"))
    assert answered(censor, b"key" + OK) == b"***" + OK
    sent(censor, bytes.fromhex("00CB3FFF00"))
    assert answered(censor, b"object" + OK) == b"object" + OK


def test_pieces_of_a_message_are_masked_as_their_first(censor: Censor) -> None:
    assert sent(censor, VERIFY[:7], LevelParameter.BEGINS) == MASKED_VERIFY[:7]
    assert sent(censor, VERIFY[7:9], LevelParameter.CONTINUES) == b"**"
    assert sent(censor, VERIFY[9:], LevelParameter.ENDS) == b"*" * 4
    sent(censor, SIGN)
    assert answered(censor, b"se", ChainParameter.BEGINS) == b"**"
    assert sent(censor, b"", LevelParameter.NEXT_RESPONSE_PIECE) == b""
    assert answered(censor, b"cret" + OK, ChainParameter.ENDS) == b"****" + OK


def test_a_pin_in_a_t1_block_is_masked(blocks: Censor) -> None:
    raw = block(0x00, VERIFY)
    assert sent(blocks, raw) == raw[:8] + b"*" * 8 + raw[-1:]


def test_a_pin_in_a_chain_of_t1_blocks_is_masked(blocks: Censor) -> None:
    first, second = block(0x20, VERIFY[:7]), block(0x40, VERIFY[7:])
    assert sent(blocks, first) == first[:8] + b"**" + first[-1:]
    assert answered(blocks, block(0x90, b"")) == block(0x90, b"")
    assert sent(blocks, second) == second[:3] + b"*" * 6 + second[-1:]
    other = block(0x00, bytes.fromhex("00CB3FFF00"))
    assert sent(blocks, other) == other


def test_a_secret_in_t1_blocks_is_masked(blocks: Censor) -> None:
    sent(blocks, block(0x00, SIGN))
    first, second = block(0x20, b"secret"), block(0x40, b"key" + OK)
    assert answered(blocks, first) == first[:3] + b"*" * 6 + first[-1:]
    assert sent(blocks, block(0x90, b"")) == block(0x90, b"")
    assert answered(blocks, second) == second[:3] + b"***" + second[-3:]


@pytest.mark.parametrize("first", [0, 1])
def test_the_protocol_is_learnt_from_the_atr(first: int) -> None:
    censor = Censor(tpdu=True)
    censor.command(IccPowerOn(0, 0))
    atr = ATR(b"", (InterfaceBytes(ta=0x11, protocol=first),)).encode()
    assert answered(censor, atr) == atr
    raw = block(0x00, VERIFY) if first else VERIFY
    start = 8 if first else 5
    assert sent(censor, raw) == raw[:start] + b"*" * 8 + raw[start + 8 :]


def test_broken_messages_do_no_harm(blocks: Censor) -> None:
    for length in range(6):
        assert len(sent(blocks, bytes(length))) == length
        assert len(answered(blocks, bytes(length))) == length
    blocks.command(IccPowerOn(0, 0))
    assert answered(blocks, b"no ATR") == b"no ATR"
    assert blocks.command(Escape(0, 0, b"\2")) == Escape(0, 0, b"\2")
