# SPDX-License-Identifier: Apache-2.0
"""A host that has a CCID reader before it, with no bus in between."""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from cards import ScriptedCard
from ccid_protocol import ccid
from ccid_protocol.ccid import (
    Command,
    CommandStatus,
    DataBlock,
    IccPowerOn,
    IccStatus,
    Response,
    XfrBlock,
)
from ccidd.reader.ccid_reader import CcidReader
from ccidd.reader.profile import ReaderProfile
from ccidd.reader.slot import Slot


class SlowCard(ScriptedCard):
    """Works as many seconds as P1 says."""

    def __init__(self) -> None:
        super().__init__(self._work)

    @staticmethod
    async def _work(command: bytes) -> bytes:
        await trio.sleep(command[2])
        return b"\x90\x00"


class Host:
    """Sends commands to a reader and collects its answers."""

    def __init__(self, slots: list[Slot], profile: ReaderProfile) -> None:
        self.slots = slots
        self.answers_in, self.answers = trio.open_memory_channel[Response](1000)
        self.announcements = 0
        self.reader = CcidReader(slots, profile, self.answers_in.send_nowait, self._announced)
        self._seq = 0

    def _announced(self) -> None:
        self.announcements += 1

    def send(self, kind: Callable[..., Command], *fields: object, slot: int = 0) -> int:
        self._seq += 1
        self.reader.submit(kind(slot, self._seq, *fields))
        return self._seq

    async def ask(self, kind: Callable[..., Command], *fields: object, slot: int = 0) -> Response:
        """Sends a command and gives its final answer."""
        seq = self.send(kind, *fields, slot=slot)
        while (
            answer := await self.answers.receive()
        ).command_status is CommandStatus.TIME_EXTENSION:
            assert answer.icc_status is IccStatus.ACTIVE
        assert (answer.slot, answer.seq) == (slot, seq)
        # What is answered can be sent.
        assert ccid.decode_response(ccid.encode(answer)) == answer
        return answer

    async def power_on(self, slot: int = 0) -> bytes:
        answer = await self.ask(IccPowerOn, slot=slot)
        assert isinstance(answer, DataBlock)
        assert outcome(answer) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
        return answer.data

    async def transfer(self, data: bytes, level: int = 0) -> tuple[bytes, int]:
        answer = await self.ask(XfrBlock, data, 0, level)
        assert isinstance(answer, DataBlock)
        assert outcome(answer) == (IccStatus.ACTIVE, CommandStatus.OK, 0)
        return answer.data, answer.chain


def outcome(answer: Response) -> tuple[IccStatus, CommandStatus, int]:
    return answer.icc_status, answer.command_status, answer.error


Start = Callable[..., Awaitable[Host]]
FAILED = CommandStatus.FAILED


def apdu(length: int) -> bytes:
    """A command that an echo card answers with so many bytes."""
    return bytes([0x00, 0x10, *divmod(length, 256)])


async def final_answers(host: Host, count: int) -> list[Response]:
    """Waits for so many answers, not counting requests for time."""
    answers: list[Response] = []
    while len(answers) < count:
        answer = await host.answers.receive()
        if answer.command_status is not CommandStatus.TIME_EXTENSION:
            answers.append(answer)
    return answers
