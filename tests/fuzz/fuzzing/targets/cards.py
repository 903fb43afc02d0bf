# SPDX-License-Identifier: Apache-2.0
"""The cards: any APDUs, in any order.

Each gets a response that fits what it asks for. Tries of a PIN come back with the right PIN or PUK
alone, and power-off ends what a PIN has opened.
"""

from typing import Final

import trio

from ccid_protocol import RemoteProtocolError
from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU
from ccidd.card.emulated import EmulatedCard
from ccidd.card.piv.extensions import ExtensionInstruction
from fuzzing.emulated import KINDS, make, pins_of, quick_keys
from fuzzing.quiet import quiet
from fuzzing.script import Script
from memory import VolatileMemory
from piv import MANAGEMENT_KEY, PivHost

_PUK: Final = 0x81
_APPLICATION_PIN: Final = 0x80
_CHAINING: Final = 0x10
_MAX_DATA: Final = 65536


def run(data: bytes) -> None:
    """Sends what the input says to the card that its first byte chooses."""
    with quiet(of_the_card=False), quick_keys():
        trio.run(_main, Script(data))


async def _main(script: Script) -> None:
    kind = script.choice(KINDS)
    card, memory = make(kind)
    await card.power_on()
    model = _Model(memory)
    while script:
        match script.number() % 8:
            case 0:
                await _cut_power(card, kind)
                model.is_administered = False
            case 1 if kind != "cac":
                await card.power_on()
                host = PivHost(card, memory)
                await host.select()
                # Somebody may have been given another key.
                model.is_administered = await host.authenticate(MANAGEMENT_KEY) == 0x9000
            case _:
                command = script.piece()
                model.begin(command)
                response = await card.transmit(command)
                _check_response(command, response)
                model.end()
        assert card._chain is None or len(card._chain.data) <= _MAX_DATA
        assert len(card._rest.data) <= 2 * _MAX_DATA


async def _cut_power(card: EmulatedCard, kind: str) -> None:
    """Powers the card off, and on again: no PIN is verified."""
    await card.power_off()
    await card.power_on()
    if kind == "cac":
        response = await card.transmit(bytes.fromhex("00A4040007A0000000790300"))
        status = await card.transmit(bytes.fromhex("00200000"))
    else:
        response = await card.transmit(bytes.fromhex("00A4040009A0000003080000100000"))
        status = await card.transmit(bytes.fromhex("00200080"))
    assert response[-2] in {0x90, 0x61}
    assert status != b"\x90\x00", "a PIN outlives the power"
    await card.power_on()


def _check_response(command: bytes, response: bytes) -> None:
    answer = ResponseAPDU.decode(response)
    try:
        apdu = CommandAPDU.decode(command)
    except RemoteProtocolError:
        assert answer.sw == 0x6700
        return
    # Some cards take a command without Le for one that wants all.
    most = _MAX_DATA if apdu.extended else 256
    assert len(answer.data) <= (apdu.ne or most)


class _Model:
    """What is known of the PINs from outside, beside the card."""

    def __init__(self, memory: VolatileMemory) -> None:
        self._pins = pins_of(memory)
        self._said = b""
        self._is_chain = False
        self.is_administered = False
        self._remember()

    def begin(self, command: bytes) -> None:
        """Sees a command before the card does."""
        self._remember()
        self._instruction = command[1] if len(command) > 1 else 0
        if not self._is_chain:
            self._said = b""
        try:
            self._said += CommandAPDU.decode(command).data
        except RemoteProtocolError:
            self._said = b""
        self._is_chain = bool(command) and bool(command[0] & _CHAINING)

    def end(self) -> None:
        """Looks what the command has done: tries come back for a reason alone."""
        for reference, pin in self._pins.items():
            if pin._tries > self._tries[reference]:
                assert self._may_regain(reference), f"{reference:02X} has tries again"

    def _may_regain(self, reference: int) -> bool:
        if self._knows(reference):
            return True
        if self._instruction == ExtensionInstruction.SET_PIN_RETRIES:
            return self.is_administered
        if self._instruction == ExtensionInstruction.RESET:
            return not self._tries[_APPLICATION_PIN] and not self._tries[_PUK]
        is_unblocked = self._instruction == Instruction.RESET_RETRY_COUNTER
        return reference == _APPLICATION_PIN and is_unblocked and self._knows(_PUK)

    def _knows(self, reference: int) -> bool:
        """Whether the value was said while it had tries."""
        return bool(self._tries[reference]) and self._values[reference] in self._said

    def _remember(self) -> None:
        self._tries = {reference: pin._tries for reference, pin in self._pins.items()}
        self._values = {reference: pin._pin for reference, pin in self._pins.items()}
