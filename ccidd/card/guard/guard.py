# SPDX-License-Identifier: Apache-2.0
"""A card behind a guard, which lets through what its rules allow.

Source: ISO/IEC 7816-4:2013, 5.1 and 5.3. Each command is judged by what it does to the application
that is selected (`judge`, `selection`), chains as a whole (`chain`). Then come, in this order, the
policy, the retry floor (`retries`) and the question to the person (`consent`). A command that is
not let through does not reach the card. One that is broken does not either: another might read it
as something else.

========  ====================================================================
6700      the command is broken
6985      the policy does not allow it, or the person does not
6983      no try of the PIN is left for the guest
6D00      the instruction is unknown here, and the policy does not allow such
6E00      the class is; 6881 a logical channel, 6882 secure messaging, 6884 a
          chain of what is never long, 6A86 its parameters
========  ====================================================================
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from ccid_protocol.apdu import CommandAPDU, Instruction, ResponseAPDU, StatusWord
from ccid_protocol.atr import ATR
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.card import Card
from ccidd.card.guard.chain import Chain
from ccidd.card.guard.command_class import CommandClass
from ccidd.card.guard.consent import Consent, ConsentRequest
from ccidd.card.guard.guest import Guest
from ccidd.card.guard.judge import MANAGE_CHANNEL, judge
from ccidd.card.guard.operations import Judgement, Operation
from ccidd.card.guard.retries import Counter, Counts, RetryFloor, concerns_pin, counter_of
from ccidd.card.guard.selection import Selected, Selection

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MORE_DATA: Final = 0x61
_WRONG_LE: Final = 0x6C


@dataclass(frozen=True, slots=True)
class Rules:
    """What a guard lets through.

    Attributes:
        policy: what a guest may do.
        retry_floor: how many tries of each PIN are kept from it.
        confirm: what a person is asked about each time.
    """

    policy: frozenset[Operation]
    retry_floor: int
    confirm: frozenset[Operation]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command was not let through.

    Attributes:
        judgement: what the command would have done.
        reason: `policy`, `consent` or `retry-floor`.
        sw: the status word that it was answered with.
    """

    judgement: Judgement
    reason: str
    sw: int


class _Refused(Exception):  # noqa: N818 (an outcome, not an error)
    """A command is not let through."""

    def __init__(self, judgement: Judgement, reason: str, sw: int) -> None:
        super().__init__(reason)
        self.refusal: Final = Refusal(judgement, reason, sw)


class Guard(Card):
    """A card behind a guard.

    Args:
        card: the card.
        rules: what is let through.
        guest: who it is guarded from.
        consent: asks the person; needed if the rules have anything to confirm.
        ledger: what is known of the retry counters of each card, by its ATR.

    Attributes:
        refusal: why the last command was not let through; None if it was.
    """

    def __init__(
        self,
        card: Card,
        rules: Rules,
        guest: Guest | None = None,
        consent: Consent | None = None,
        ledger: dict[bytes, Counts] | None = None,
    ) -> None:
        assert consent is not None or not rules.confirm
        self.card: Final = card
        self._rules = rules
        self.refusal: Refusal | None = None
        self._guest = guest or Guest()
        self._consent = consent
        self._ledger = {} if ledger is None else ledger
        self._floor = RetryFloor(rules.retry_floor, Counts())
        self._chain = Chain()
        self._selection = Selection()

    async def power_on(self) -> ATR:
        """See `Card.power_on`."""
        self._forget()
        atr = await self.card.power_on()
        counts = self._ledger.setdefault(atr.encode(), Counts())
        self._floor = RetryFloor(self._rules.retry_floor, counts)
        return atr

    async def power_off(self) -> None:
        """See `Card.power_off`."""
        self._forget()
        await self.card.power_off()

    def held(self) -> AbstractAsyncContextManager[None]:
        """See `Card.held`."""
        return self.card.held()

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`."""
        self.refusal = None
        try:
            apdu = CommandAPDU.decode(command)
        except RemoteProtocolError:
            self._chain.drop()
            return ResponseAPDU(sw=StatusWord.WRONG_LENGTH).encode()
        try:
            return (await self._answer(apdu)).encode()
        except _Refused as refused:
            self._chain.drop()
            self.refusal = refused.refusal
            self._log(refused.refusal)
            return ResponseAPDU(sw=refused.refusal.sw).encode()

    def _forget(self) -> None:
        self._chain.drop()
        self._selection.forget()

    def _log(self, refusal: Refusal) -> None:
        judgement = refusal.judgement
        reference = {} if judgement.reference is None else {"key": judgement.reference}
        log.warning(
            "guard_refused",
            guest=self._guest.name,
            instruction=judgement.instruction,
            **reference,
            reason=refusal.reason,
        )

    async def _answer(self, command: CommandAPDU) -> ResponseAPDU:
        command_class = CommandClass.of(command.cla)
        selected = self._selection.on(command_class.channel)
        if command_class.chained:
            self._check_policy(judge(command, selected))
            if self._chain.add(command):
                return ResponseAPDU()
            return ResponseAPDU(sw=StatusWord.WRONG_LENGTH)
        whole, parts = self._chain.end(command)
        judgement = judge(whole, selected)
        self._check_policy(judgement)
        counter = counter_of(whole, selected.kind)
        if counter is not None and self._rules.retry_floor:
            return await self._try_pin(whole, counter, judgement)
        if judgement.asks:
            await self._check_consent(judgement, selected)
        response = await self._send_all(parts, command_class.channel)
        if self._rules.retry_floor and concerns_pin(whole):
            return ResponseAPDU(response.data, self._floor.shown(whole, response.sw))
        return response

    def _check_policy(self, judgement: Judgement) -> None:
        if not judgement.operations <= self._rules.policy:
            raise _Refused(judgement, "policy", judgement.refusal)

    async def _check_consent(self, judgement: Judgement, selected: Selected) -> None:
        operations = judgement.operations & self._rules.confirm
        if not operations:
            return
        assert self._consent is not None
        request = ConsentRequest(
            guest=self._guest.name,
            card=selected.kind.value,
            operations=operations,
            reference=judgement.reference,
            key=judgement.key,
        )
        agreed = False
        async with self.card.held():
            with trio.move_on_after(request.timeout):
                agreed = await self._consent.ask(request)
        if not agreed:
            raise _Refused(judgement, "consent", StatusWord.CONDITIONS_NOT_SATISFIED)

    async def _try_pin(
        self, command: CommandAPDU, counter: Counter, judgement: Judgement
    ) -> ResponseAPDU:
        """Lets a PIN be compared, if a try is left for the guest."""
        if not await self._floor.begin(command, counter, self._ask):
            sw = StatusWord.AUTHENTICATION_METHOD_BLOCKED
            raise _Refused(judgement, "retry-floor", sw)
        response = await self._send_all([command], CommandClass.of(command.cla).channel)
        self._floor.note(counter, response.sw)
        return ResponseAPDU(response.data, self._floor.shown(command, response.sw))

    async def _ask(self, question: CommandAPDU) -> ResponseAPDU:
        """Asks the card something, and fetches the answer as T=0 may need it."""
        response = await self._send(question)
        if response.sw >> 8 == _WRONG_LE:
            response = await self._send(_with_le(question, response.sw))
        if response.sw >> 8 == _MORE_DATA:
            fetch = CommandAPDU(question.cla, Instruction.GET_RESPONSE, 0, 0)
            response = await self._send(_with_le(fetch, response.sw))
        return response

    async def _send_all(self, parts: list[CommandAPDU], channel: int) -> ResponseAPDU:
        """Sends a command, whose chain ends where the card refuses a part."""
        *others, last = parts
        if last.ins == MANAGE_CHANNEL:
            self._selection.forget_others()
        changes_selection = last.ins == Instruction.SELECT
        if not others and not changes_selection:
            response = await self._send(last)
            self._selection.note(channel, last, response)
            return response
        is_done = False
        try:
            for part in others:
                response = await self._send(part)
                if response.sw != StatusWord.SUCCESS:
                    is_done = True
                    return response
            response = await self._send(last)
            is_done = True
        finally:
            if not is_done:
                # Half a chain may lie on the card, or anything be selected; SELECT will tell.
                self._selection.forget()
        self._selection.note(channel, last, response)
        return response

    async def _send(self, command: CommandAPDU) -> ResponseAPDU:
        return ResponseAPDU.decode(await self.card.transmit(command.encode()))


def _with_le(command: CommandAPDU, sw: int) -> CommandAPDU:
    ne = sw & 0xFF or 256
    return CommandAPDU(command.cla, command.ins, command.p1, command.p2, ne=ne)
