# SPDX-License-Identifier: Apache-2.0
"""The front door `usbredir` with the reader behind it: a hostile guest, or a peer that is no QEMU.

A strict guest's end hears all that is sent, and the next guest is served as if nothing had been.
"""

from ccid_protocol.errors import RemoteProtocolError
from ccid_protocol.usb import SetupPacket
from ccid_protocol.usbredir import GUEST_CAPABILITIES, Packet, Role
from ccid_protocol.usbredir.codec import Codec
from ccidd.reader.profile import Level
from fuzzing.script import Script
from hostile_guest import FLOODS, SLOTS, Guest, cards, say_raw, scenario
from usbredir_witness import Bench

_SIZES = (0, 1, 10, 63, 64, 65, 512, 65556, 0xFFFFFFFF)
_WAITS = (0, 0, 0, 1, 6, 40)
_CODEC = Codec(GUEST_CAPABILITIES)
_MOST_READS = 4


def run(data: bytes) -> None:
    """Does with the reader what the input says: as a guest, or as bytes."""
    script = Script(data)
    flags = script.number()
    level = tuple(Level)[flags % 3]

    async def say_anything(bench: Bench) -> None:
        await say_raw(bench, list(script.pieces()))

    async def be_a_guest(bench: Bench) -> None:
        guest = Guest(bench)
        await guest.configure()
        while script:
            await _step(guest, script)
        await guest.close()

    scenario(say_anything if flags & 0x80 else be_a_guest, level)


async def _step(  # noqa: C901, PLR0912 (a case for each thing that a guest does)
    guest: Guest, script: Script
) -> None:
    match script.number() % 16:
        case 0:
            await guest.control(SetupPacket.decode(script.take(8).ljust(8, b"\0")))
        case 1:
            await guest.read(script.choice(_SIZES))
        case 2:
            await guest.cancel(script.number() % 5 + 1)
        case 3:
            packet = _packet(script.piece())
            if packet is not None:
                await guest.say(packet)
        case 4:
            slot = script.number() % SLOTS
            await guest.put(slot, script.choice(sorted(cards())))
        case 5:
            await guest.wait(script.choice(_WAITS))
        case 6:
            await guest.configure()
        case 7:
            await guest.start_over()
        case 8:
            await guest.go_on()
        case 9:
            await guest.flood(script.choice(FLOODS))
        case 10:
            count = script.number() % _MOST_READS
            reads = [(script.choice(_SIZES), bool(script.number() & 1)) for _ in range(count)]
            await guest.cross(script.piece(), reads, backwards=bool(script.number() & 1))
        case 11:
            await guest.use(script.number() % SLOTS, script.piece())
        case _:
            await guest.write(script.piece())


def _packet(raw: bytes) -> Packet | None:
    """Reads a packet that a guest may send; None if it is none."""
    size = _CODEC.header_size
    if len(raw) < size:
        return None
    try:
        header = _CODEC.decode_header(raw, Role.GUEST)
        if len(raw) - size != header.length:
            return None
        return _CODEC.decode(header, raw[size:], Role.GUEST)
    except RemoteProtocolError:
        return None
