# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cards import ScriptedCard
from ccid_protocol.errors import RemoteProtocolError
from ccidd.reader.t0 import T0CardEnd


class Card(ScriptedCard):
    """Has so many bytes for every command, and remembers the commands."""

    def __init__(self, size: int, sw: bytes = b"\x90\x00") -> None:
        super().__init__(self._response)
        self._answer_bytes = bytes(i % 251 for i in range(size)) + sw
        self.received: list[str] = []

    async def _response(self, command: bytes) -> bytes:
        self.received.append(command.hex())
        return self._answer_bytes


async def exchange(card: Card, *tpdus: str) -> list[str]:
    end = T0CardEnd(card)
    return [(await end.transmit(bytes.fromhex(tpdu))).hex() for tpdu in tpdus]


async def test_commands_reach_the_card_as_apdus() -> None:
    card = Card(0)
    tpdus = ["00200080", "0020008000", "00A4040002ABCD", "00A4040002ABCD00", "00CA000010"]
    assert await exchange(card, *tpdus) == ["9000"] * 5
    assert card.received == [
        "00200080",
        "0020008000",
        "00a4040002abcd",
        "00a4040002abcd",
        "00ca000010",
    ]


@pytest.mark.parametrize(
    "tpdu",
    [
        "",
        "00",
        "00A404",
        "00A4040002AB",
        "00A4040002ABCD0000",
        "00A4040000AB",
        "00A40400000002ABCD",
    ],
)
async def test_what_is_no_tpdu_has_a_wrong_length(tpdu: str) -> None:
    with pytest.raises(RemoteProtocolError):
        await T0CardEnd(Card(0)).transmit(bytes.fromhex(tpdu))


async def test_an_answer_to_a_command_with_data_waits_for_get_response() -> None:
    card = Card(5)
    assert await exchange(card, "00A4040002ABCD", "00C0000005") == ["6105", "00010203049000"]
    assert len(card.received) == 1


async def test_a_host_that_wants_more_than_there_is_learns_how_much_there_is() -> None:
    card = Card(5)
    for header in ("00CA0000", "00C00000"):
        assert await exchange(card, f"{header}20", f"{header}05") == ["6c05", "00010203049000"]
    assert await exchange(card, "00CA000000", "00CA000005") == ["6c05", "00010203049000"]
    assert await exchange(card, "00A4040002ABCD", "00C0000020", "00C0000005") == [
        "6105",
        "6c05",
        "00010203049000",
    ]
    # Each was carried out once.
    assert len(card.received) == 4


async def test_a_host_that_wants_less_gets_that_and_may_fetch_the_rest() -> None:
    assert await exchange(Card(5), "00CA000002", "00C0000003") == ["00016103", "0203049000"]


async def test_another_command_forgets_what_waited() -> None:
    card = Card(5)
    assert await exchange(card, "00CA000020", "00CA010005", "00CA000005") == [
        "6c05",
        "00010203049000",
        "00010203049000",
    ]
    assert len(card.received) == 3


async def test_status_words_pass() -> None:
    assert await exchange(Card(0, b"\x6a\x82"), "00CA000020", "00A4040001AA") == ["6a82", "6a82"]


@given(st.binary(max_size=12), st.integers(0, 600))
async def test_whatever_comes_the_answer_is_what_t0_can_carry(tpdu: bytes, size: int) -> None:
    end = T0CardEnd(Card(size))
    try:
        answer = await end.transmit(tpdu)
    except RemoteProtocolError:
        return
    wanted = (tpdu[4] or 256) if len(tpdu) == 5 else 0
    assert len(answer) in {2, 2 + wanted}
