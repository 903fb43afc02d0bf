# SPDX-License-Identifier: Apache-2.0
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol.apdu import CommandAPDU, ResponseAPDU
from ccid_protocol.atr import ATR
from ccidd.card.application import Application, CardError
from ccidd.card.emulated import Conventions, EmulatedCard

AID_A = bytes.fromhex("F0000000AA")
AID_B = bytes.fromhex("F0000000BB")


class Echo(Application):
    """INS 10 answers with its own data, 11 with 1000 bytes, 12 fails, 13 breaks."""

    def __init__(self, aid: bytes) -> None:
        self._aid = aid
        self.deselected = 0

    def is_selected_by(self, aid: bytes) -> bool:
        return aid == self._aid

    def select(self) -> bytes:
        return b"selected " + self._aid

    def deselect(self) -> None:
        self.deselected += 1

    async def process(self, command: CommandAPDU) -> ResponseAPDU:
        match command.ins:
            case 0x10:
                return ResponseAPDU(command.data)
            case 0x11:
                return ResponseAPDU(bytes(i % 251 for i in range(1000)), 0x6282)
            case 0x12:
                raise CardError(0x6A80)
            case 0x13:
                raise ZeroDivisionError
            case _:
                raise CardError(0x6D00)


@pytest.fixture
def card() -> EmulatedCard:
    return EmulatedCard(ATR(b"test"), [Echo(AID_A), Echo(AID_B)])


async def send(card: EmulatedCard, command: str) -> str:
    return (await card.transmit(bytes.fromhex(command))).hex().upper()


async def select(card: EmulatedCard, aid: bytes = AID_A) -> None:
    assert (await send(card, f"00A4040005{aid.hex()}00")).endswith("9000")


async def test_select_answers_with_the_properties(card: EmulatedCard) -> None:
    properties = (b"selected " + AID_A).hex().upper()
    assert await send(card, f"00A4040005{AID_A.hex()}00") == f"{properties}9000"
    assert await send(card, f"00A4040C05{AID_A.hex()}") == "9000"
    assert await send(card, f"00A4040005{AID_A.hex()}") == "610E"
    assert await send(card, "00C000000E") == f"{properties}9000"


@pytest.mark.parametrize("command", ["00A4040002F000", "00A40000023F00", "00A40000", "00A4040100"])
async def test_whatever_else_is_selected_is_not_found(card: EmulatedCard, command: str) -> None:
    assert await send(card, command) == "6A82"


async def test_a_failed_select_leaves_the_selected_application(card: EmulatedCard) -> None:
    await select(card)
    assert await send(card, "00A4040002F000") == "6A82"
    assert await send(card, "0010000002AABB00") == "AABB9000"


async def test_selecting_another_application_deselects_the_first() -> None:
    first, second = Echo(AID_A), Echo(AID_B)
    card = EmulatedCard(ATR(b""), [first, second])
    await select(card, AID_A)
    await select(card, AID_A)
    assert first.deselected == 0
    await select(card, AID_B)
    assert first.deselected == 1


async def test_power_on_deselects_everything(card: EmulatedCard) -> None:
    await select(card)
    assert await card.power_on() == ATR(b"test")
    assert await send(card, "0010000002AABB00") == "6D00"


async def test_before_any_select_data_are_not_found_and_the_rest_is_unknown(
    card: EmulatedCard,
) -> None:
    assert await send(card, "00CB3FFF055C035FC10200") == "6A82"
    assert await send(card, "00CA9F7F00") == "6A82"
    assert await send(card, "0010000000") == "6D00"


@pytest.mark.parametrize(
    ("cla", "sw"), [("80", "6E00"), ("40", "6E00"), ("04", "6882"), ("0C", "6882"), ("01", "6881")]
)
async def test_class_bytes_that_are_not_supported(card: EmulatedCard, cla: str, sw: str) -> None:
    assert await send(card, f"{cla}100000") == sw
    await select(card)
    assert await send(card, f"{cla}100000") == sw
    assert await send(card, f"{cla}C0000000") == sw


class Other(Echo):
    """It knows any class, and objects that are selected within it."""

    def __init__(self, aid: bytes) -> None:
        super().__init__(aid)
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def check_class(self, cla: int) -> None:
        if cla == 0xFF:
            raise CardError(0x6E01)

    async def select_within(self, command: CommandAPDU) -> ResponseAPDU:
        return ResponseAPDU(b"within " + command.data)


async def test_each_application_has_class_bytes_of_its_own() -> None:
    card = EmulatedCard(ATR(b""), [Echo(AID_A), Other(AID_B)])
    await select(card, AID_B)
    assert await send(card, "8010000001CC00") == "CC9000"
    assert await send(card, "FF10000001CC00") == "6E01"
    # A bit that would mean a chain in an interindustry class means nothing here.
    assert await send(card, "9010000001CC00") == "CC9000"
    assert await send(card, f"80A4040005{AID_A.hex()}00") != "6E00"
    assert await send(card, "8010000001CC00") == "6E00"


async def test_what_is_not_selected_by_name_is_for_the_selected_application() -> None:
    card = EmulatedCard(ATR(b""), [Echo(AID_A), Other(AID_B)])
    await select(card, AID_B)
    assert await send(card, "00A4020002F00000") == b"within \xf0\x00".hex().upper() + "9000"
    await select(card, AID_A)
    assert await send(card, "00A4020002F00000") == "6A82"


async def test_while_nothing_is_selected_something_may_answer() -> None:
    nothing = Other(b"")
    card = EmulatedCard(ATR(b""), [Echo(AID_A)], nothing)
    await card.power_on()
    assert nothing.resets == 1
    assert await send(card, "8010000001CC00") == "CC9000"
    assert await send(card, "00A4020000") == b"within ".hex().upper() + "9000"
    assert await send(card, "00A4040002F00000") == "6A82"
    await select(card)
    assert await send(card, "8010000001CC00") == "6E00"
    assert nothing.deselected == 0


async def test_conventions_that_are_not_iso_s() -> None:
    first = Echo(AID_A)
    conventions = Conventions(
        nothing_to_give=0x6A88,
        select_ignores_p2=True,
        failed_select_deselects=True,
        starts_long_responses=False,
    )
    card = EmulatedCard(ATR(b""), [first], conventions=conventions)
    assert await send(card, "00C0000000") == "6A88"
    for p2 in ("0C", "02", "FF"):
        assert (await send(card, f"00A404{p2}05{AID_A.hex()}00")).endswith("9000")
        assert await send(card, f"00A404{p2}05{AID_A.hex()}") == "610E"
    assert await send(card, "0010000004AABBCCDD03") == "6104"
    assert await send(card, "00C0000001") == "AA6103"
    assert await send(card, "00C0000003") == "BBCCDD9000"
    assert await send(card, "00A4040002F000") == "6A82"
    assert first.deselected == 1
    assert await send(card, "0010000004AABBCCDD03") == "6D00"


async def test_long_responses_come_piece_by_piece_with_their_status_at_the_end(
    card: EmulatedCard,
) -> None:
    await select(card)
    whole = bytes(i % 251 for i in range(1000))
    assert await send(card, "00110000000000") == whole.hex().upper() + "6282"
    assert await send(card, "00110000") == "6100"
    received = b""
    for ne, sw in ((256, 0x6100), (256, 0x6100), (256, 0x61E8), (0x20, 0x61C8), (0xC8, 0x6282)):
        command = CommandAPDU(0, 0xC0, 0, 0, ne=ne).encode()
        response = ResponseAPDU.decode(await card.transmit(command))
        assert (len(response.data), response.sw) == (ne, sw)
        received += response.data
    assert received == whole
    assert await send(card, "00C0000000") == "6985"


async def test_ne_shorter_than_the_response(card: EmulatedCard) -> None:
    await select(card)
    assert await send(card, "0010000004AABBCCDD01") == "AA6103"
    assert await send(card, "00C0000003") == "BBCCDD9000"


async def test_get_response_without_le_gives_what_a_short_response_holds(
    card: EmulatedCard,
) -> None:
    await select(card)
    whole = bytes(i % 251 for i in range(1000))
    assert await send(card, "00110000") == "6100"
    assert await send(card, "00C00000") == whole[:256].hex().upper() + "6100"


async def test_some_hosts_get_data_although_they_ask_for_none() -> None:
    card = EmulatedCard(ATR(b""), [Echo(AID_A)], conventions=Conventions(data_without_le=True))
    await select(card)
    whole = bytes(i % 251 for i in range(1000))
    assert await send(card, "0010000002AABB") == "AABB9000"
    assert await send(card, "00110000") == whole[:256].hex().upper() + "6100"
    assert await send(card, "00100000000002AABB") == "AABB9000"
    assert await send(card, "0010000001AA01") == "AA9000"


async def test_another_command_drops_the_rest_of_a_response(card: EmulatedCard) -> None:
    await select(card)
    assert await send(card, "0010000004AABBCCDD01") == "AA6103"
    assert await send(card, "00120000") == "6A80"
    assert await send(card, "00C0000003") == "6985"


async def test_a_chain_of_commands_is_one_command(card: EmulatedCard) -> None:
    await select(card)
    assert await send(card, "1010000002AABB") == "9000"
    assert await send(card, "1010000001CC") == "9000"
    assert await send(card, "0010000002DDEE00") == "AABBCCDDEE9000"


async def test_a_chain_can_be_selected_with(card: EmulatedCard) -> None:
    assert await send(card, f"10A4040003{AID_A[:3].hex()}") == "9000"
    assert (await send(card, f"00A4040002{AID_A[3:].hex()}00")).endswith("9000")


async def test_another_command_ends_a_chain(card: EmulatedCard) -> None:
    await select(card)
    assert await send(card, "1010000002AABB") == "9000"
    assert await send(card, "00120000") == "6A80"
    assert await send(card, "0010000001CC00") == "CC9000"


async def test_a_chain_has_an_end(card: EmulatedCard) -> None:
    await select(card)
    piece = CommandAPDU(0x10, 0x10, 0, 0, bytes(255)).encode().hex()
    for _ in range(257):
        assert await send(card, piece) == "9000"
    assert await send(card, piece) == "6700"


async def test_a_fault_of_an_application_looks_like_one_of_the_card(card: EmulatedCard) -> None:
    await select(card)
    with structlog.testing.capture_logs() as logs:
        assert await send(card, "00130000") == "6F00"
    assert [entry["event"] for entry in logs] == ["card_fault"]
    assert await send(card, "0010000001CC00") == "CC9000"


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_whatever_a_host_sends_gets_a_status_word(commands: list[bytes]) -> None:
    async def send_all() -> None:
        card = EmulatedCard(ATR(b""), [Echo(AID_A)])
        await select(card)
        for command in commands:
            with structlog.testing.capture_logs():
                assert len(await card.transmit(command)) >= 2

    trio.run(send_all)
