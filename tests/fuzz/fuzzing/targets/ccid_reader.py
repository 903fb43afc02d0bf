# SPDX-License-Identifier: Apache-2.0
"""The CCID reader: any messages, with cards that come and go and are bad.

Each message gets exactly one final answer, and a question for the slot's status gets it at once.
"""

import trio
import trio.testing

from ccid_protocol.ccid import (
    HEADER_SIZE,
    Abort,
    BadMessage,
    GetSlotStatus,
    decode_command,
)
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.profile import Level, default_profile
from ccidd.reader.slot import Slot
from fuzzing.answers import Answers
from fuzzing.cards import card
from fuzzing.quiet import quiet
from fuzzing.script import Script
from hostile_guest import SLOTS, Person

_WAITS = (0, 0, 0, 0.5, 1, 5, 40)
_PATIENCE = 1000
"""Seconds of a clock that jumps, after which a command is not answered any more."""


def run(data: bytes) -> None:
    """Does with a reader what the input says, and waits for all answers."""
    with quiet():
        trio.run(_Bench(Script(data)).main, clock=trio.testing.MockClock(autojump_threshold=0))


class _Bench:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._level = script.choice(tuple(Level))
        profile = default_profile(SLOTS, "1", self._level)
        self._slots = [Slot(card(script), index) for index in range(SLOTS)]
        self._answers = Answers(profile.max_message_length)
        self._aborts: dict[int, int] = {}
        self._reader = CcidReader(
            self._slots, profile, lambda _: None, lambda: None, Person(), witness=self._answers
        )

    async def main(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reader.run)
            while self._script:
                await self._step()
            await self._finish()
            nursery.cancel_scope.cancel()

    async def _step(self) -> None:
        script = self._script
        match script.number() % 12:
            case 0:
                self._reader.abort(script.number() % (SLOTS + 1), script.number())
            case 1:
                slot = self._slots[script.number() % SLOTS]
                inserted = card(script)
                if inserted is None:
                    slot.remove()
                else:
                    slot.insert(inserted)
            case 2:
                await trio.sleep(script.choice(_WAITS))
            case 3:
                self._reader.reset()
                self._answers.forget()
            case 4:
                self._reader.take_hardware_error()
                self._reader.take_notification()
            case 5:
                await trio.testing.wait_all_tasks_blocked()
            case _:
                self._submit(script.piece())

    def _submit(self, raw: bytes) -> None:
        if len(raw) < HEADER_SIZE:
            return
        message = decode_command(raw, extended_apdu=self._level is Level.EXTENDED_APDU)
        before = self._answers.count
        self._reader.submit(message)
        if isinstance(message, Abort):
            self._aborts[message.slot] = message.seq
        elif isinstance(message, GetSlotStatus | BadMessage):
            assert self._answers.count == before, "not answered at once"

    async def _finish(self) -> None:
        """Completes what is half an abort; without cards all else is answered."""
        for slot, seq in self._aborts.items():
            self._reader.abort(slot, seq)
        with trio.move_on_after(_PATIENCE):
            for each in self._slots:
                each.remove()
            await trio.testing.wait_all_tasks_blocked()
        assert not self._answers.count, f"no answer to {+self._answers.due}"
        for index in range(SLOTS):
            status = GetSlotStatus(index, 0)
            self._reader.submit(status)
        assert not self._answers.count
