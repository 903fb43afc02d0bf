# SPDX-License-Identifier: Apache-2.0
"""The guard before a card: whatever a guest sends, the card stays as it is.

No try of a PIN is used up beyond the floor, no PIN is changed, and nothing is written.
"""

import trio

from ccid_protocol.apdu import ResponseAPDU
from ccidd.card.guard.guard import Guard, Rules
from ccidd.card.guard.operations import NOTHING, USE
from fuzzing.emulated import KINDS, make, pins_of, quick_keys
from fuzzing.quiet import quiet
from fuzzing.script import Script

_PUK = 0x81


def run(data: bytes) -> None:
    """Sends what the input says to the guard before the card that its first byte chooses."""
    with quiet(of_the_card=False), quick_keys():
        trio.run(_main, Script(data))


async def _main(script: Script) -> None:
    choice = script.number()
    card, memory = make(KINDS[choice % len(KINDS)])
    floor = 1 + (choice >> 4) % 3
    pins = pins_of(memory)
    contents = dict(memory.contents)
    values = {reference: pin._pin for reference, pin in pins.items()}
    guard = Guard(card, Rules(USE, floor, NOTHING))
    await guard.power_on()
    while script:
        match script.number() % 16:
            case 0:
                await guard.power_off()
                await guard.power_on()
            case 1:
                await guard.power_on()
            case _:
                ResponseAPDU.decode(await guard.transmit(script.piece()))
        for reference, pin in pins.items():
            assert pin._tries >= floor, f"a guest has used a try of {reference:02X}"
            assert pin._pin == values[reference], f"a guest has changed {reference:02X}"
        assert memory.contents == contents, "a guest has written"
        assert _PUK not in pins or pins[_PUK]._tries == pins[_PUK]._max_tries
