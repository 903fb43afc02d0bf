# SPDX-License-Identifier: Apache-2.0
"""Slots that follow PKCS#11 tokens: `--card=TYPE,token=URI` and `token=any`.

A token that is there becomes a card, whose keys are placed by what their certificates are for
(`ccidd.service.placement`), and whose PIN is the token's. When the token goes so does the card. A
token that comes again is opened anew, and its PIN must be entered again.

Source: RFC 7512 (URIs); PKCS #11 Cryptographic Token Interface Base Specification Version 2.40.
"""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

import structlog
import trio

from ccid_protocol.atr import ATR
from ccidd.card.card import Card, CardGoneError
from ccidd.card.piv.contents import guid_of
from ccidd.errors import UserError
from ccidd.keys.cryptoki import SlotFlags, TokenInfo
from ccidd.keys.inventory import Wanted, usable_certificates
from ccidd.keys.key import Credential, KeyUnavailableError
from ccidd.keys.pkcs11 import PinRefusedError, open_present_token
from ccidd.keys.token import Token
from ccidd.keys.tokenwatch import PresentToken, TokenWatch
from ccidd.keys.uri import Pkcs11Uri
from ccidd.reader.slot import Slot
from ccidd.service.cardtypes import CARD_TYPES
from ccidd.service.state import State, StoredMemory
from ccidd.service.supply import CardSupply, Protection
from ccidd.service.tokenchoice import TokenChoice
from ccidd.service.tokenpin import TokenPin

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 5.0
"""Seconds until a token is looked at again that could not be used: keys may be put on it yet."""

_LOOK_INTERVAL: Final = 2.0
"""Seconds between two looks at what is on a software token."""

_LAST_ANSWER: Final = 0.5
"""Seconds that a command has to end in when its token has gone."""

_ANSWER_SENT: Final = 0.02
"""Seconds that the reader has to pass on what a card has answered."""

_CLOSING: Final = 3.0
"""Seconds that modules have to close a token's sessions."""

_MAX_OPENING: Final = 16
"""Tokens that are opened at a time; a module that hangs keeps one from it."""

Identity: TypeAlias = tuple[str, str, str, str, str, int]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class TokenCard(Card):
    """A card that goes when its token goes, but first gives the answer that it owes.

    Args:
        card: the card itself.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._gone = False
        self._idle = trio.Event()
        self._idle.set()

    async def power_on(self) -> ATR:
        """See `Card.power_on`."""
        self._check()
        return await self._card.power_on()

    async def power_off(self) -> None:
        """See `Card.power_off`."""
        await self._card.power_off()

    async def transmit(self, command: bytes) -> bytes:
        """See `Card.transmit`."""
        self._check()
        self._idle = trio.Event()
        try:
            return await self._card.transmit(command)
        finally:
            self._idle.set()

    def _check(self) -> None:
        if self._gone:
            raise CardGoneError

    async def leave(self) -> None:
        """Takes no more commands, and waits for the answer to the last one."""
        self._gone = True
        if not self._idle.is_set():
            with trio.move_on_after(_LAST_ANSWER):
                await self._idle.wait()
                await trio.sleep(_ANSWER_SENT)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A token in use, and its card with its GUID."""

    token: Token
    guid: str
    memory: StoredMemory
    token_card: TokenCard
    card: Card


class _Opening:
    """Opens a token in a thread, which nobody waits for any more once the token has gone."""

    def __init__(self, present: PresentToken, uri: Pkcs11Uri) -> None:
        self._present = present
        self._uri = uri
        self._lock = threading.Lock()
        self._abandoned = False
        self._token: Token | None = None

    async def run(self, limiter: trio.CapacityLimiter) -> Token:
        """Opens it; see `open_present_token`."""
        try:
            return await trio.to_thread.run_sync(
                self._open, abandon_on_cancel=True, limiter=limiter
            )
        except trio.Cancelled:
            with self._lock:
                self._abandoned = True
                if self._token is not None:
                    _close_behind(self._token)
            raise

    def _open(self) -> Token:
        token = open_present_token(self._present, self._uri)
        with self._lock:
            self._token = token
            abandoned = self._abandoned
        if abandoned:
            token.close()
        return token


class _Places:
    """Which token is in which slot. A token that comes again gets its slot, if it is free.

    Args:
        count: how many slots there are.
    """

    def __init__(self, count: int) -> None:
        self._free = set(range(count))
        self._count = count
        self._wishes: dict[Identity, int] = {}
        self._present: set[Identity] = set()
        self._changed = trio.Event()

    def arrive(self, token: Identity) -> None:
        """Notes that a token is there: the order of arrival is that of the slots."""
        taken = {self._wishes.get(other) for other in self._present}
        self._present.add(token)
        if token in self._wishes and self._wishes[token] not in taken:
            return
        self._wishes.pop(token, None)
        for index in range(self._count):
            if index not in taken:
                self._wishes[token] = index
                break

    def depart(self, token: Identity) -> None:
        """Notes that a token is there no more."""
        self._present.discard(token)

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    async def take(self, token: Identity) -> int:
        """Gives a free slot; waits for one."""
        while not self._free:
            await self._changed.wait()
        wish = self._wishes.get(token)
        others = {self._wishes.get(other) for other in self._present}
        index = wish if wish in self._free else min(self._free, key=lambda i: (i in others, i))
        assert index is not None
        self._free.discard(index)
        return index

    def give_back(self, index: int) -> None:
        """Frees a slot."""
        self._free.add(index)
        self._changed.set()
        self._changed = trio.Event()


@dataclass(slots=True)
class _Run:
    """One run of a supply.

    Attributes:
        slots: its slots.
        nursery: where each token has its task.
        places: which token is where.
        there: the tokens that are there, each with the scope of its task.
    """

    slots: Sequence[Slot]
    nursery: trio.Nursery
    places: _Places
    there: dict[Identity, trio.CancelScope] = field(default_factory=dict)


class TokenSupply(CardSupply):
    """Cards made of the tokens that are there.

    Args:
        choice: which tokens.
        state: where tries are counted.
        protection: what stands between the guest and each card.
        accepts: says of each token whether it may become a card; by default, all may.

    Attributes:
        labels: those of the tokens that are in slots, by the number of the slot.
    """

    def __init__(
        self,
        choice: TokenChoice,
        state: State,
        protection: Protection,
        accepts: Callable[[TokenInfo], bool] | None = None,
    ) -> None:
        self._options = choice.options
        self._accepts = accepts
        self.labels: dict[int, str] = {}
        self._kind = CARD_TYPES[choice.options.type]
        self._state = state
        self._protection = protection
        self._choice = choice
        self._uri = choice.uri
        self._limiter = trio.CapacityLimiter(_MAX_OPENING)
        # Tokens that have another PIN than the file says: it is not tried again.
        self._refused: set[Identity] = set()

    @property
    def slot_count(self) -> int:
        """See `CardSupply.slot_count`."""
        return self._options.slot_count

    async def run(self, slots: Sequence[Slot]) -> None:
        """See `CardSupply.run`."""
        async with trio.open_nursery() as nursery:
            run = _Run(slots, nursery, _Places(len(slots)))
            for module in self._choice.modules:
                nursery.start_soon(TokenWatch(module).run, partial(self._follow, run, module))

    def _follow(self, run: _Run, module: str, tokens: Sequence[PresentToken]) -> None:
        """Hears which tokens a module has now."""
        wanted = {token.identity: token for token in tokens if self._is_wanted(token)}
        for identity in [each for each in run.there if each[0] == module and each not in wanted]:
            run.places.depart(identity)
            run.there.pop(identity).cancel()
        for identity, token in wanted.items():
            if identity not in run.there:
                run.places.arrive(identity)
                run.there[identity] = scope = trio.CancelScope()
                run.nursery.start_soon(self._serve, run, token, scope)

    def _is_wanted(self, token: PresentToken) -> bool:
        if self._accepts is not None and not self._accepts(token.info):
            return False
        return self._choice.includes(token)

    async def _serve(self, run: _Run, present: PresentToken, scope: trio.CancelScope) -> None:
        """Has a token in a slot as long as it is there."""
        with scope:
            while True:
                await self._serve_unchanged(run, present)

    async def _serve_unchanged(self, run: _Run, present: PresentToken) -> None:
        """Has a token in a slot as long as there are the same keys on it."""
        opened = await self._open_patiently(present)
        index: int | None = None
        try:
            if not run.places.has_room():
                log.info("token_waits_for_a_slot", token=present.info.label)
            index = await run.places.take(present.identity)
            slot = run.slots[index]
            self.labels[index] = present.info.label
            slot.insert(opened.card)
            log.info(
                "token_inserted",
                token=present.info.label,
                serial=present.info.serial,
                card=opened.guid,
                slot=slot.name,
            )
            await self._until_changed(opened.token)
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    # What the token is at fails at once.
                    nursery.start_soon(_close, opened)
                    if index is not None:
                        await self._remove(run, index, opened)

    async def _until_changed(self, token: Token) -> None:
        """Waits until there are other keys on a token, for which only software tokens are asked.

        While somebody is logged in it may show more, so it is not looked at then.
        """
        if SlotFlags.HW_SLOT in token.info.slot_flags or self._uri.pin_source is not None:
            await trio.sleep_forever()
        known = frozenset(each.certificate_der() for each in token.credentials())
        look = partial(usable_certificates, token, Wanted(self._uri.object, self._uri.id))
        while True:
            await trio.sleep(_LOOK_INTERVAL)
            if token.is_logged_in:
                continue
            try:
                found = await trio.to_thread.run_sync(
                    look, abandon_on_cancel=True, limiter=self._limiter
                )
            except KeyUnavailableError:
                # If it has gone, that is told elsewhere.
                continue
            if found != known and not token.is_logged_in:
                log.info("token_changed", token=token.info.label)
                return

    async def _remove(self, run: _Run, index: int, opened: _Opened) -> None:
        await opened.token_card.leave()
        slot = run.slots[index]
        slot.remove()
        self.labels.pop(index, None)
        run.places.give_back(index)
        log.info("token_removed", token=opened.token.info.label, slot=slot.name)

    async def _open_patiently(self, present: PresentToken) -> _Opened:
        """Opens a token, and again and again while it cannot be used."""
        delay = _FIRST_DELAY
        told = ""
        while True:
            try:
                return await self._open(present)
            except PinRefusedError as error:
                self._refused.add(present.identity)
                reason = str(error)
            except (UserError, KeyUnavailableError) as error:
                reason = str(error)
            except Exception:
                # A fault of ours costs this token its slot, and no other.
                log.exception("token_fault", token=present.info.label)
                reason = ""
            if reason != told:
                log.info("token_not_used", token=present.info.label, reason=reason)
                told = reason
            if present.identity in self._refused:
                await trio.sleep_forever()
            await trio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    async def _open(self, present: PresentToken) -> _Opened:
        if present.identity in self._refused:
            raise UserError("the PIN of pin-source= was refused before, and is not tried again")
        token = await _Opening(present, self._uri).run(self._limiter)
        with ExitStack() as failing:
            failing.callback(_close_behind, token)
            look = partial(self._choice.named_keys, token)
            chosen = await trio.to_thread.run_sync(look, limiter=self._limiter)
            opened = await self._state.in_thread(partial(self._make, present, token, chosen))
            failing.pop_all()
        return opened

    def _make(
        self, present: PresentToken, token: Token, chosen: Mapping[int, Credential]
    ) -> _Opened:
        kind, switches = self._kind, self._options.switches
        keys = self._choice.place(token, chosen)
        placed = keys.placed
        for each in keys.left_out:
            log.info("key_left_out", subject=each.certificate.subject.rfc4514_string())
        guid = _guid(present, placed)
        self._state.note_card(str(guid), self._options.type)
        keep = self._protection.retry_floor
        pins = {kind.pin: TokenPin(self._state, str(guid), kind.pin, [token], keep=keep)}
        shared = "vendor-extensions" not in switches
        memory = StoredMemory(self._state, self._state.card(str(guid)), pins, shared=shared)
        try:
            card = TokenCard(kind.make(placed, memory, switches, guid))
            return _Opened(token, str(guid), memory, card, self._protection.protect(card))
        except BaseException:
            memory.close()
            raise


def _guid(present: PresentToken, placed: Mapping[int, Credential]) -> uuid.UUID:
    """Gives the GUID of a token's card: another one for another token, even with the same keys."""
    info = present.info
    token = f"{info.manufacturer}\0{info.model}\0{info.serial}"
    return uuid.uuid5(guid_of(placed.values()), token)


async def _close(opened: _Opened) -> None:
    opened.memory.close()
    with trio.move_on_after(_CLOSING):
        await trio.to_thread.run_sync(opened.token.close, abandon_on_cancel=True)


def _close_behind(token: Token) -> None:
    """Closes a token that nobody uses, without waiting."""
    threading.Thread(target=token.close, daemon=True).start()
