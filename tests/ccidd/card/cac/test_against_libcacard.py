# SPDX-License-Identifier: Apache-2.0
"""The CAC beside libcacard's, on this machine: the same commands, and the same bytes in answer.

What differs on purpose is in the second half of this file, and nowhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cac import ACA, CCC, PIN, WRONG_PIN, card_memory
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.cac.card import cac_card
from ccidd.card.emulated import EmulatedCard
from ccidd.keys.key import KeyAlgorithm
from credentials import credential
from libcacard import LibcacardProcess
from tokens import nss_database

RSA = (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096)
EC = KeyAlgorithm.P_256

CARD_MANAGER, PLUG_AND_PLAY = "A0000000030000", "A0000003974349445F0100"
CONTAINERS = (
    *("A00000007902FB", "A00000007902FE", "A00000007902FD", "A0000000790200", "A0000000790201"),
    *("A0000000791201", "A0000000791202", "A00000007902F0", "A00000007902F1", "A00000007902F2"),
    "A0000001163000",
)
PKI = tuple(f"A00000007901{number:02X}" for number in range(len(RSA)))
APPLETS = (CCC, ACA, CARD_MANAGER, PLUG_AND_PLAY, *CONTAINERS, *PKI)

GET_RESPONSE = "00C0000000"
LOGIN = f"0020000008{PIN.hex()}"
WRONG_LOGIN = f"0020000008{WRONG_PIN.hex()}"
PIN_STATUS = "00200000"

# The card identifier in the V-buffer of the CCC, after the length and what names the kind of card.
CARD_IDENTIFIER = slice(2 + 7, 2 + 7 + 14)


def select(aid: str) -> str:
    return f"00A40400{len(aid) // 2:02X}{aid}00"


def sign(block: str) -> list[str]:
    """Gives the commands that sign a block, which comes in pieces."""
    pieces = [block[start : start + 480] for start in range(0, len(block), 480)]
    steps = ["80"] * (len(pieces) - 1) + ["00"]
    return [
        f"8042{p1}00{len(piece) // 2:02X}{piece}" for p1, piece in zip(steps, pieces, strict=True)
    ]


@dataclass
class Pair:
    """Both cards."""

    theirs: LibcacardProcess
    ours: EmulatedCard

    async def send(self, command: str) -> tuple[str, str]:
        """Gives libcacard's answer, and ours."""
        raw = bytes.fromhex(command)
        ours = await self.ours.transmit(raw)
        return self.theirs.transmit(raw).hex().upper(), ours.hex().upper()

    async def send_same(self, *commands: str) -> None:
        """Sends commands to which the answers must be the same."""
        for command in commands:
            theirs, ours = await self.send(command)
            assert ours == theirs, command

    async def reset(self) -> None:
        self.theirs.reset()
        await self.ours.power_on()


async def our_card(algorithms: Sequence[KeyAlgorithm] = RSA) -> EmulatedCard:
    card = cac_card([credential(algorithm) for algorithm in algorithms], card_memory())
    await card.power_on()
    return card


def database(directory: Path, password: str) -> Path:
    """Makes a database with the certificates cert0 to cert3."""
    keys = {f"cert{number}": (algorithm, 0) for number, algorithm in enumerate((*RSA, EC))}
    return nss_database(directory / "database", keys, password)


@pytest.fixture(scope="module")
def with_password(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return database(tmp_path_factory.mktemp("database"), PIN.decode())


@pytest.fixture(scope="module")
def process(with_password: Path) -> Iterator[LibcacardProcess]:
    with LibcacardProcess(with_password, ["cert0", "cert1", "cert2"]) as process:
        yield process


@pytest.fixture
async def pair(process: LibcacardProcess) -> Pair:
    process.reset()
    return Pair(process, await our_card())


async def test_the_atr(pair: Pair) -> None:
    assert (await pair.ours.power_on()).encode() == pair.theirs.atr


COMMANDS = (
    *("80560100", GET_RESPONSE, "8056010000", "8056010005", "80560100000100", "8056010001AA"),
    *("8056010001AA00", "80564000", GET_RESPONSE, "8056400000", "80564000000000", "8056000000"),
    *("80560300", "80560101", "80560200", "8056020000", "805602000101", "80560200010107"),
    *("805602000240FF", "8056020002014000", "8056020002014010", "805602000150", GET_RESPONSE),
    *("805602000151", "8052000002010202", "8052000002020202", "80520000020102", GET_RESPONSE),
    *("80520000020100", "8052000002010000", "8052000102010202", "80520002020102FF"),
    *("80520001020105FF", "8052000202010300", "805200030201FF00", "805200000203FF00"),
    *("8052000001", "80520000", "80520000030102FF", "805200000201", "8052FFFF02010202"),
    *("005200000201FF00", "8058000000", "80580000", "8058000003010203", "80420000"),
    *("804280000401020304", "804C3000", "00A40200020100", "00A402000201000F", "00A4020002DB00"),
    *("00A40200020300", "00A40200023000", "00A40200026010", "00A4020002600000", "00A4020001DB"),
    *("00A40200", "00A4020003DB0000", "00A4000002DB00", "00A40100023F00", "80FE0000"),
    *("00FE000000", "00C0000000", "00C00000", "00CA9F7F", GET_RESPONSE, "00CA9F7F10"),
    *("00CA006600", "00CA7F68", GET_RESPONSE, "00CA7F6800", "00CA123400", "00CB3FFF00"),
    *("0082000008", "805A0000", "00200100", "00200001", "002C0001", "0087119A00", "00DB3FFF00"),
    *("00B0000000", "00D6000001AA", "0070000000"),
)


@pytest.mark.parametrize("aid", APPLETS)
async def test_each_command_in_each_applet(pair: Pair, aid: str) -> None:
    await pair.send_same(select(aid), *COMMANDS)


async def test_commands_with_no_applet_selected(pair: Pair) -> None:
    await pair.send_same(*COMMANDS, LOGIN, PIN_STATUS)


@pytest.mark.parametrize("which", ["01", "02"])
@pytest.mark.parametrize("aid", [CCC, *CONTAINERS, *PKI])
async def test_buffers(pair: Pair, aid: str, which: str) -> None:
    await pair.send_same(select(aid), f"8052000002{which}0202")
    theirs, ours = "", ""
    for offset in range(0, 0x1000, 240):
        answers = await pair.send(f"8052{offset:04X}02{which}F000")
        assert answers[0][-4:] == answers[1][-4:]
        if answers[0] == "6A86":
            break
        theirs, ours = theirs + answers[0][:-4], ours + answers[1][:-4]
    if (aid, which) == (CCC, "02"):
        theirs, ours = without_identity(theirs), without_identity(ours)
    assert ours == theirs


def without_identity(buffer: str) -> str:
    """Takes out what is the same on all cards of libcacard's, but says on ours which card it is."""
    content = bytearray.fromhex(buffer)
    content[CARD_IDENTIFIER] = bytes(14)
    return content.hex()


@pytest.mark.parametrize(
    "aid",
    [
        *(*APPLETS, "A0000000790103", "A00000007901", "A0000000790100FF", "A0", "627601FF000000"),
        *("A0000003974349445F0200", "A000000308000010000100", "A0000000791000", "D27600012401"),
    ],
)
async def test_select_by_name(pair: Pair, aid: str) -> None:
    name = f"{len(aid) // 2:02X}{aid}"
    for p2 in ("00", "0C", "02", "FF"):
        for le in ("", "00", "05"):
            await pair.send_same(f"00A404{p2}{name}{le}", GET_RESPONSE)
    await pair.send_same(f"80A40400{name}", GET_RESPONSE, "00A40400", "00A4040000", "80560100")


@pytest.mark.parametrize(
    "command",
    [
        *("804C010001", "804C01000100", "804C01000101", "804C0100010F", "804C010002AABB"),
        *(f"804C110007{aid}00" for aid in (*PKI, *CONTAINERS, ACA, CARD_MANAGER)),
        *(f"804C120002{number}" for number in ("0100", "0102", "0103", "DB00", "0200", "FFFF")),
        *(f"804C120002{number}00" for number in ("3000", "6010", "9000", "1234", "0300")),
        *("804C4000", "804C400000", "804C410000", "804C6000", "804C600000", "804C610000"),
        *("804C0200", "804C0001", "804C000001AA00", "804C0100", "804C1100", "804C1200"),
        *("804C120003AABBCC", "804C30", "804C3000", "804CFF00", "804C420000"),
    ],
)
async def test_access_control_rules(pair: Pair, command: str) -> None:
    await pair.send_same(select(ACA), command, GET_RESPONSE)


async def test_class_bytes_of_commands_that_all_applets_have(pair: Pair) -> None:
    for cla in range(0x100):
        await pair.send_same(f"{cla:02X}A4040007{CCC}00", f"{cla:02X}C0000000")
        await pair.send_same(f"{cla:02X}20000008{PIN.hex()}")


@pytest.mark.parametrize(
    "command",
    [
        *("", "00", "0052", "0052000003AABB", "0052000001AABBCC", "00520000000000", "005200000000"),
        *("0052000000000201", "005200000000020102", "00520000000002010200", "005200000001020102"),
        *("0052000000000201020000", "0052000000000201020002", "00560100000000", "0056010000000017"),
    ],
)
async def test_lengths(pair: Pair, command: str) -> None:
    await pair.send_same(select(CCC), command, GET_RESPONSE)


@pytest.mark.parametrize("number", range(len(RSA)), ids=[algorithm.value for algorithm in RSA])
async def test_sign_and_decrypt(pair: Pair, number: int) -> None:
    size = 256 + 128 * number if number < 2 else 512
    block = "0001" + "FF" * (size - 36) + "00" + "A5" * 33
    commands = sign(block)
    first, rest = commands[0], commands[1:]
    await pair.send_same(select(PKI[number]), *commands, LOGIN)
    for le in ("", "00", "FF"):
        await pair.send_same(*commands[:-1], commands[-1] + le, *[GET_RESPONSE] * 3)
    # In one command of extended length.
    whole = f"8042000000{size:04X}{block}"
    await pair.send_same(whole, *[GET_RESPONSE] * 3, f"{whole}0000", f"{whole}0100", GET_RESPONSE)
    # No block: too short, too long, not below the modulus.
    await pair.send_same("8042000001AA", "80420000", *rest, first, *commands)
    await pair.send_same(f"8042000000{size:04X}{'FF' * size}", f"8042000000{size + 1:04X}00{block}")
    # What comes in between.
    await pair.send_same(first, "80560100", *rest, GET_RESPONSE)
    for between in ("80420001", "80422000", select(PKI[number]), "00A4040001AA"):
        await pair.send_same(first, between, select(PKI[number]), *rest)
    await pair.send_same(first, select(CCC), select(PKI[number]), *rest)


async def test_the_pin_stays_verified_in_all_applets_until_the_reset(pair: Pair) -> None:
    command = f"8042000000010000{'11' * 255}"
    await pair.send_same(select(ACA), LOGIN, PIN_STATUS, select(PKI[0]), command, select(CCC))
    await pair.send_same(select(CARD_MANAGER), PIN_STATUS, select(PKI[0]), command)
    await pair.send_same("00A4040001AA", PIN_STATUS)
    await pair.reset()
    await pair.send_same(select(PKI[0]), command)


PIECES = st.binary(max_size=8).map(bytes.hex)
BYTE = st.sampled_from(["00", "01", "02", "03", "40", "50", "60", "80", "FF"])
INS = st.sampled_from(["42", "4C", "52", "56", "58", "A4", "C0", "CA", "82", "FE"])


@st.composite
def commands(draw: st.DrawFn) -> str:
    """Any command that both know, and some that none does."""
    if draw(st.booleans()):
        return select(draw(st.sampled_from(APPLETS)))
    ins, p1, p2 = draw(INS), draw(BYTE), draw(BYTE)
    data = bytes.fromhex(draw(PIECES | st.sampled_from(["0102", "02FF", "01FF", "DB00", "0100"])))
    if ins == "4C" and p1 in {"00", "01", "50"}:
        p1 = "40"  # see below
    lengths = [1, 7, 23, 255, 256] if ins == "C0" else [0, 1, 7, 23, 255, 256]  # see below
    le = draw(st.sampled_from(lengths))
    command = CommandAPDU(
        draw(st.sampled_from([0x00, 0x80])),
        int(ins, 16),
        int(p1, 16),
        int(p2, 16),
        data,
        le,
    )
    return command.encode().hex()


@given(st.lists(commands(), max_size=25))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_sequence_of_commands(process: LibcacardProcess, sequence: list[str]) -> None:
    async def send_all() -> None:
        process.reset()
        pair = Pair(process, await our_card())
        await pair.send_same(LOGIN)
        for command in sequence:
            theirs, ours = await pair.send(command)
            if ours != theirs and theirs.startswith("0A01A000000079"):
                theirs, ours = without_identity(theirs), without_identity(ours)
            assert ours == theirs, sequence

    trio.run(send_all)


# What differs.


@dataclass(frozen=True)
class Difference:
    """An answer that differs.

    Attributes:
        why: why so.
        before: commands that are sent before, with the same answers.
        command: the command; the whole response is fetched.
        theirs: libcacard's answer.
        ours: ours.
    """

    why: str
    before: tuple[str, ...]
    command: str
    theirs: str
    ours: str


INFORMATION = "01051002060202"
CHANGE_PIN = f"0024000010{PIN.hex()}{WRONG_PIN.hex()}"
DIFFERENCES = (
    Difference("the PIN can be changed", (select(ACA),), CHANGE_PIN, "6D00", "9000"),
    Difference("there are random numbers", (select(ACA),), "0084000108", "6D00", "6A86"),
    Difference("a wrong PIN costs a try", (), WRONG_LOGIN, "6985", "63C2"),
    Difference("how many tries are left can be asked", (), PIN_STATUS, "6A88", "63C3"),
    Difference("after a wrong PIN, too", (LOGIN, "00200001"), f"{PIN_STATUS}01AA", "6985", "63C2"),
    Difference(
        "of a rule's access methods, libcacard sends other bytes of its memory",
        (select(ACA),),
        "804C0100010A00",
        f"{INFORMATION}A0070A0300000200009000",
        f"{INFORMATION}A0070A03021D031E019000",
    ),
    Difference(
        "and of the rule that asks for a PIN",
        (select(ACA),),
        "804C0100010600",
        f"{INFORMATION}A00506060000019000",
        f"{INFORMATION}A0050606011E009000",
    ),
    Difference(
        "and in the table of all rules",
        (select(ACA),),
        "804C000000",
        f"{INFORMATION}A1010BA003000000A003010100A00302001FA0050606000001A00504041F0001"
        "A00708030000020000A0050902000001A0070A030000020000A0050B02000001A00310001EA00311001D9000",
        f"{INFORMATION}A1010BA003000000A003010100A003020000A0050606011E00A0050404011F21"
        "A0070803021D011E01A0050902011D01A0070A03021D031E01A0050B02011D00A003100000A0031100009000",
    ),
    Difference(
        "libcacard's CCC has the number F4 where the table of applets says 4F",
        (select(ACA),),
        f"804C110007{CCC}00",
        f"{INFORMATION}9000",
        f"{INFORMATION}801A4F028208DB00580004520000820CFFFF820100118400112000109000",
    ),
    Difference(
        "libcacard leaves out the first provider, and does not send the identifiers",
        (select(ACA),),
        "804C200000",
        f"{INFORMATION}910103900A1E92071E000000070000900A1D92071D00000007000090030092009000",
        f"{INFORMATION}910103900A1F9207A0000000790300900A1E9207A0000000790300"
        "900A1D9207A00000007903009000",
    ),
    Difference(
        "a class byte that means nothing is refused to applets too",
        (select(CCC),),
        "4056010017",
        "01051002060203400101500B4102DB0042050036000C019000",
        "6900",
    ),
    Difference(
        "there are no logical channels, each with an applet of its own",
        (select(CCC), f"01A4040007{ACA}00"),
        "80560100",
        "01051002060203400101500B4102DB0042050036000C019000",
        f"{INFORMATION}9000",
    ),
)


async def all_of(pair: Pair, command: str) -> list[str]:
    """Sends a command to both; gives the answers with what GET RESPONSE fetches."""

    async def theirs(command: str) -> str:
        return pair.theirs.transmit(bytes.fromhex(command)).hex().upper()

    async def ours(command: str) -> str:
        return (await pair.ours.transmit(bytes.fromhex(command))).hex().upper()

    whole = []
    for send in (theirs, ours):
        answer = await send(command)
        while answer[-4:-2] == "61":
            answer = answer[:-4] + await send(GET_RESPONSE)
        whole.append(answer)
    return whole


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.why)
async def test_differences(with_password: Path, difference: Difference) -> None:
    with LibcacardProcess(with_password, ["cert0", "cert1", "cert2"]) as process:
        pair = Pair(process, await our_card())
        await pair.send_same(*difference.before)
        assert await all_of(pair, difference.command) == [difference.theirs, difference.ours]


async def test_a_key_on_a_curve_has_an_algorithm_of_its_own_and_can_be_used(
    with_password: Path,
) -> None:
    with LibcacardProcess(with_password, ["cert3"]) as process:
        pair = Pair(process, await our_card([EC]))
        await pair.send_same(select(PKI[0]), LOGIN)
        theirs, ours = await all_of(pair, "80560100")
        assert ours == theirs.replace("430406040101", "430411040101")
        assert ours != theirs
        theirs, ours = await all_of(pair, f"8042000020{'A5' * 32}00")
        assert theirs == "6984"
        assert ours.startswith("30")
        assert ours.endswith("9000")


async def test_without_a_password_the_pin_is_demanded_all_the_same(tmp_path: Path) -> None:
    with LibcacardProcess(database(tmp_path, ""), ["cert0"]) as process:
        pair = Pair(process, await our_card(RSA[:1]))
        await pair.send_same(select(PKI[0]))
        theirs, ours = await all_of(pair, f"80420000000100{'00' + '11' * 255}")
        assert (theirs[-4:], ours) == ("9000", "6985")
        assert await pair.send(WRONG_LOGIN) == ("9000", "63C2")


async def test_a_get_response_without_le_gets_data_so_that_nobody_asks_for_ever(
    pair: Pair,
) -> None:
    await pair.send_same(select(CCC), "80520000020102")
    assert await pair.send("00C00000") == ("6102", "34009000")
