# SPDX-License-Identifier: Apache-2.0
"""Whatever comes over the socket: nothing harms QEMU, no limit is passed, the next is served."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, reduce
from operator import xor
from typing import TypeAlias

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ccid_protocol import ccid
from ccid_protocol.ccid import (
    IccPowerOn,
    PinFormat,
    PinTemplate,
    PinVerification,
    XfrBlock,
)
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import (
    AltSettingStatus,
    BulkPacket,
    CancelDataPacket,
    FilterFilter,
    FilterReject,
    GetAltSetting,
    GetConfiguration,
    InterruptPacket,
    IsoPacket,
    PacketType,
    Reset,
    SetAltSetting,
    SetConfiguration,
    StartInterruptReceiving,
    StartIsoStream,
    StopInterruptReceiving,
    StopIsoStream,
)
from ccidd.reader.profile import Level
from hostile_guest import (
    FLOODS,
    SLOTS,
    Guest,
    Step,
    ask,
    cards,
    say_raw,
    scenario,
)
from usbredir_peer import BULK_IN, BULK_OUT, INTERRUPT_IN, UsbredirPeer
from usbredir_witness import Bench

# What a guest can do, well-formed as usb redirection, but for the bytes inside.


def step(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*arguments))


u8, u16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
in_address = st.sampled_from([INTERRUPT_IN, BULK_IN, 0x80, 0x85])
address = st.sampled_from([BULK_OUT, BULK_IN, INTERRUPT_IN, 0x00, 0x80, 0x04, 0x84])
size = st.sampled_from([0, 1, 10, 63, 64, 65, 512, 65556, 0xFFFFFFFF])
slot = st.sampled_from([0, 0, 0, 1, SLOTS, 255])
seq = st.integers(0, 3)
some = st.binary(max_size=40)

setups = st.one_of(
    st.builds(SetupPacket, u8, u8, u16, u16, u16),
    # Standard requests: of the device, the interface and each endpoint; those of CCID.
    st.builds(
        SetupPacket,
        st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82]),
        st.integers(0, 12),
        st.sampled_from([0, 1, 0x0100, 0x0200, 0x0300, 0x0304, 0x2100]),
        st.sampled_from([0, 1, BULK_OUT, BULK_IN, INTERRUPT_IN]),
        u16,
    ),
    st.builds(SetupPacket, st.just(0x02), st.sampled_from([1, 3]), st.just(0), address),
    st.builds(lambda s, n: SetupPacket(0x21, 1, n << 8 | s), slot, seq),
    st.builds(SetupPacket, st.just(0xA1), st.sampled_from([2, 3]), st.just(0), st.just(0), u16),
)


def with_header(  # noqa: PLR0917 (hypothesis gives them by their places)
    kind: int, slot: int, seq: int, specific: bytes, data: bytes, surplus: int = 0
) -> bytes:
    length = max(0, len(data) + surplus).to_bytes(4, "little")
    return bytes([kind]) + length + bytes([slot, seq]) + specific + data


def with_byte(data: bytes, place: int, byte: int) -> bytes:
    return data[:place] + bytes([byte]) + data[place + 1 :]


def block_of(pcb: int, inf: bytes) -> bytes:
    raw = bytes([0, pcb, len(inf)]) + inf
    return raw + bytes([reduce(xor, raw)])


apdus = st.one_of(
    some,
    st.builds(lambda n: bytes([0, 0x10]) + n.to_bytes(2) + bytes(3), u16),
    st.builds(block_of, u8 | st.sampled_from([0, 0x20, 0x40, 0x80, 0x90, 0xC0, 0xC1, 0xC3]), some),
    st.builds(bytes.__add__, st.sampled_from([b"\xff\x10\xef", b"\xff\x11\x18\xf6"]), some),
)
VERIFY = PinVerification(
    PinTemplate.decode(bytes.fromhex("0020008008") + b"\xff" * 8, 0),
    PinFormat.decode(0x82, 0x08, 0x00),
    6,
    8,
)
secure = st.one_of(
    some,
    st.builds(lambda seconds: replace(VERIFY, timeout=seconds).encode(), u8),
    st.builds(lambda place, byte: with_byte(VERIFY.encode(), place, byte), st.integers(0, 27), u8),
)
level = st.sampled_from([0, 0, 0, 1, 2, 3, 0x10]).map(lambda n: bytes([0, n, 0]))
specific = st.binary(min_size=3, max_size=3)
kinds = st.sampled_from(sorted(ccid.MessageType)) | u8
messages = st.one_of(
    st.binary(max_size=100),
    st.builds(with_header, kinds, slot, seq, specific, some, st.sampled_from([0, 0, 0, 1, -1, 70])),
    st.builds(with_header, kinds, slot, seq, level, st.just(b"")),
    st.builds(with_header, st.just(0x62), slot, seq, st.just(bytes(3)), st.just(b"")),
    st.builds(with_header, st.just(0x6F), slot, seq, level, apdus),
    st.builds(with_header, st.just(0x69), slot, seq, level, secure),
    st.builds(with_header, st.just(0x6F), slot, seq, level, st.integers(0, 70000).map(bytes)),
    st.builds(with_header, st.just(0x72), slot, seq, st.just(bytes(3)), st.just(b"")),
)

requests = st.one_of(
    st.builds(SetConfiguration, u8, st.sampled_from([0, 1, 1, 1, 2])),
    st.builds(GetConfiguration, u8),
    st.builds(SetAltSetting, u8, st.sampled_from([0, 1]), st.sampled_from([0, 1])),
    st.builds(GetAltSetting, u8, u8),
    st.builds(BulkPacket, u8, st.sampled_from([0x80, 0x84]), size),
    st.builds(lambda i, e, d: BulkPacket(i, e, data=d), u8, st.sampled_from([0, 4]), some),
)
others = st.one_of(
    st.builds(Reset),
    st.builds(StartInterruptReceiving, u32, in_address),
    st.builds(StopInterruptReceiving, u32, in_address),
    st.builds(StartInterruptReceiving, st.just(0), st.just(INTERRUPT_IN)),
    st.builds(StopInterruptReceiving, st.just(0), st.just(INTERRUPT_IN)),
    st.builds(StartIsoStream, u32, address, u8, u8),
    st.builds(StopIsoStream, u32, address),
    st.builds(InterruptPacket, st.integers(0, 15), some, u32),
    st.builds(IsoPacket, st.integers(0, 15), some, u32),
    st.builds(FilterFilter, st.text("0123456789,|-x", max_size=20)),
    st.builds(FilterReject),
    st.builds(CancelDataPacket, u8),
)
steps = st.one_of(
    step("control", setups),
    step("write", messages),
    step("use", slot, messages),
    step("cross", messages, st.lists(st.tuples(size, st.booleans()), max_size=4), st.booleans()),
    step("read", size),
    step("read", size),
    step("cancel", st.integers(1, 5)),
    step("say", requests | others),
    step("put", st.integers(0, SLOTS - 1), st.sampled_from(sorted(cards()))),
    step("wait", st.sampled_from([0, 0, 0, 1, 6, 40])),
    step("flood", st.sampled_from(FLOODS)),
    step("configure"),
    step("start_over"),
    step("go_on"),
)


@given(st.lists(steps, max_size=40), st.sampled_from(Level))
def test_whatever_a_guest_does_nothing_goes_wrong_and_the_next_is_served(
    steps: list[Step], level: Level
) -> None:
    async def act(bench: Bench) -> None:
        guest = Guest(bench)
        await guest.do([("configure", ()), *steps])
        await guest.close()

    scenario(act, level)


@given(st.lists(steps, max_size=20), st.lists(steps, max_size=5))
def test_the_reader_can_be_unplugged_whatever_a_guest_does(
    before: list[Step], after: list[Step]
) -> None:
    async def act(bench: Bench) -> None:
        guest = Guest(bench)
        await guest.do([("configure", ()), *before])
        for slot in bench.slots:
            slot.unplug()
        await guest.do(after)
        await bench.until_left()

    scenario(act, is_left=False)


# Bytes that no QEMU sends.


class Recorder(UsbredirPeer):
    """Keeps what it says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.said: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self.said.append(data)
        await super().write(data)


@cache
def recording() -> tuple[bytes, ...]:
    """What a guest says that uses a card, packet by packet."""
    said = []

    async def act(bench: Bench) -> None:
        peer = Recorder(bench.connect_raw())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await peer.configure()
            await peer.control(SetupPacket(0x80, 6, 0x0200, 0, 255))
            await peer.listen()
            await peer.notification()
            await ask(peer, IccPowerOn(0, 1))
            # On UHCI a message comes in pieces, and is read in pieces.
            message = ccid.encode(XfrBlock(0, 2, bytes([0, 0x10, 0, 150]) + bytes(100)))
            await peer.bulk_out(message[:64])
            await peer.bulk_out(message[64:])
            for _ in range(3):
                await peer.bulk_in(64)
            await peer.send(CancelDataPacket(await peer.read()))
            await peer.expect(BulkPacket)
            await peer.control(SetupPacket(0x21, 1, 3 << 8))
            await ask(peer, ccid.Abort(0, 3))
            await peer.control(SetupPacket(0x02, 1, 0, BULK_OUT))
            await peer.send(SetAltSetting(1, 0, 0))
            await peer.expect(AltSettingStatus)
            await peer.send(StopInterruptReceiving(0, INTERRUPT_IN))
            await ask(peer, ccid.IccPowerOff(0, 4))
            await peer.close()
        said.extend(peer.said)

    scenario(act)
    return tuple(said)


Change: TypeAlias = Callable[[list[bytes]], None]
places, offsets = st.integers(0, 40), st.integers(0, 200)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """One thing that goes wrong with a list of packets."""
    kind = draw(st.sampled_from(["flip", "drop", "double", "swap", "cut", "join", "insert"]))
    place, other, offset = draw(places), draw(places), draw(offsets)
    value = draw(st.integers(1, 255))

    def change(packets: list[bytes]) -> None:
        here = place % len(packets)
        packet = packets[here]
        split = offset % (len(packet) + 1)
        match kind:
            case "flip":
                packets[here] = packet[:split] + bytes(b ^ value for b in packet[split:][:1])
                packets[here] += packet[split + 1 :]
            case "drop":
                packets[here] = b""
            case "double":
                packets.insert(other % len(packets), packet)
            case "swap":
                there = other % len(packets)
                packets[here], packets[there] = packets[there], packet
            case "cut":
                packets[here] = packet[:split]
            case "join":
                packets[here] = packet[split:]
            case "insert":
                packets[here] = packet[:split] + bytes([value]) * (other + 1) + packet[split:]

    return change


@given(st.lists(changes(), min_size=1, max_size=4), st.booleans())
def test_whatever_happens_to_what_a_guest_says_the_next_is_served(
    changes: list[Change],
    at_once: bool,  # noqa: FBT001 (hypothesis gives it by its place)
) -> None:
    packets = list(recording())
    for change in changes:
        change(packets)

    async def act(bench: Bench) -> None:
        await say_raw(bench, [b"".join(packets)] if at_once else packets)

    scenario(act)


packets = st.builds(
    lambda kind, number, wide, body: (
        kind.to_bytes(4, "little")
        + len(body).to_bytes(4, "little")
        + number.to_bytes(8 if wide else 4, "little")
        + body
    ),
    st.sampled_from(sorted(PacketType)) | st.integers(0, 110),
    st.integers(0, 5),
    st.sampled_from([True, True, False]),
    some
    | st.sampled_from([0, 1, 2, 3, 4, 8, 10]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
)
hellos = st.builds(
    lambda capabilities: bytes([0] * 4 + [68] + [0] * 7 + [0x51] * 63 + [0, capabilities, 0, 0, 0]),
    st.sampled_from([0xFF, 0xFF, 0x7E, 0]) | u8,
)
streams = st.one_of(
    st.lists(st.binary(max_size=200), max_size=5),
    st.lists(packets, max_size=20),
    st.builds(lambda hello, pieces: [hello, *pieces], hellos, st.lists(packets, max_size=20)),
    st.builds(lambda hello, data: [hello, data], hellos, st.binary(max_size=200)),
)


@given(st.lists(streams, min_size=1, max_size=3))
def test_whatever_comes_over_the_socket_the_next_is_served(streams: list[list[bytes]]) -> None:
    async def act(bench: Bench) -> None:
        for pieces in streams:
            await say_raw(bench, pieces)

    scenario(act)
