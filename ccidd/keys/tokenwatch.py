# SPDX-License-Identifier: Apache-2.0
"""Which tokens a PKCS#11 module has now, and when that changes.

The module runs in a process of its own (see `ccidd.keys.cryptoki_worker`), beside those of sessions
with its tokens. Where it can wait for a change (C_WaitForSlotEvent) it does, and is otherwise asked
twice a second. A module that hangs or crashes is started again, later each time.

Source: PKCS #11 Cryptographic Token Interface Base Specification Version 2.40, 5.5.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
import trio

from ccidd.errors import UserError
from ccidd.keys.cryptoki import Cryptoki, CryptokiError, LibraryInfo, TokenFlags, TokenInfo

POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at a module that cannot wait."""

TIMEOUT: Final = 30.0
"""Seconds that a module may take to tell of its tokens; it may have to read a card first."""

_PROBE_TIMEOUT: Final = 10.0
"""Seconds that a module may take to be loaded."""

_LONGEST_WAIT: Final = 600.0
"""Seconds after which a module that waits is looked at anew, in case that it never tells."""

_SHORTEST_WAIT: Final = 0.1
"""Seconds between two looks at a module that says over and over that something has changed."""

_FIRST_DELAY: Final = 0.25
_LONGEST_DELAY: Final = 30.0
"""Seconds until a module that failed is started again: the first time, and after many times."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PresentToken:
    """A token that is there.

    Attributes:
        module: the path of its PKCS#11 module.
        library: what the module says of itself.
        info: the token.
        number: which it is, from 1, of several that are the same but for their slots; or else 0.
    """

    module: str
    library: LibraryInfo
    info: TokenInfo
    number: int = 0

    @property
    def identity(self) -> tuple[str, str, str, str, str, int]:
        """What tells it from all others, and finds it again in another slot."""
        info = self.info
        names = info.label, info.manufacturer, info.model, info.serial
        return self.module, *names, self.number


Tell: TypeAlias = Callable[[Sequence[PresentToken]], None]


class TokenWatch:
    """Watches the tokens of a module.

    Args:
        module: its path.
        timeout: seconds that it may take for anything but waiting.
    """

    def __init__(self, module: str, *, timeout: float = TIMEOUT) -> None:
        self._module = module
        self._timeout = timeout

    async def run(self, tell: Tell) -> None:
        """Watches until it is cancelled.

        Args:
            tell: told of all tokens that are there, at the start and whenever that has changed, in
                Trio's thread. What was told last holds while a module that failed is started again.
        """
        delay = _FIRST_DELAY
        while True:
            began = trio.current_time()
            watcher = _Watcher(self._module, self._timeout, tell)
            reason = await watcher.run()
            if trio.current_time() - began > _LONGEST_DELAY:
                delay = _FIRST_DELAY
            if not watcher.has_listed:
                # Nothing is known of its tokens any more.
                tell(())
            if reason is not None:
                log.warning(
                    "token_module_failed", module=self._module, reason=reason, again_in=delay
                )
                await trio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)


class _Watcher:
    """One process that watches, and the thread that waits for it."""

    def __init__(self, module: str, timeout: float, tell: Tell) -> None:
        self.has_listed = False
        self._module = module
        self._timeout = timeout
        self._tell = tell
        self._can_wait = True
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._cryptoki: Cryptoki | None = None

    async def run(self) -> str | None:
        """Watches until the module fails; a cancelled caller waits for no module.

        Returns:
            Why it failed; None if it shall only be looked at anew.
        """
        ended = trio.Event()
        reason: list[str] = []

        async def run() -> None:
            reason.extend(await trio.to_thread.run_sync(self._run, limiter=limiter))
            ended.set()

        # A thread of its own, for as long as it takes.
        limiter = trio.CapacityLimiter(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                await ended.wait()
            finally:
                # The thread then ends at once.
                self._stop()
        return reason[0] if reason else None

    def _stop(self) -> None:
        with self._lock:
            self._stopped.set()
            if self._cryptoki is not None:
                self._cryptoki.kill()

    def _run(self) -> list[str]:
        with self._lock:
            if self._stopped.is_set():
                return []
            cryptoki = self._cryptoki = Cryptoki(self._timeout)
        try:
            self._watch(cryptoki)
        except CryptokiError as error:
            return [error.reason]
        finally:
            cryptoki.close()
        return []

    def _watch(self, cryptoki: Cryptoki) -> None:
        library = cryptoki.load(self._module)
        known = None
        while True:
            found = _present(self._module, library, cryptoki.tokens())
            identities = [token.identity for token in found]
            if identities != known:
                known = identities
                trio.from_thread.run_sync(self._tell, found)
            self.has_listed = True
            if not self._wait(cryptoki):
                return

    def _wait(self, cryptoki: Cryptoki) -> bool:
        """Waits until there may be news; tells whether the process is still of use."""
        began = time.monotonic()
        if self._can_wait:
            try:
                cryptoki.wait(_LONGEST_WAIT)
            except CryptokiError as error:
                if time.monotonic() - began >= _LONGEST_WAIT:
                    return False
                # Any other refusal may pass: OpenSC's, for one, when pcscd comes.
                self._can_wait = error.reason != "CKR_FUNCTION_NOT_SUPPORTED"
            else:
                return not self._stopped.wait(_SHORTEST_WAIT)
        if self._stopped.wait(POLL_INTERVAL):
            return False
        cryptoki.refresh()
        return True


def probe_module(module: str) -> None:
    """Finds out whether a file is a PKCS#11 module, without having it do anything. Blocks.

    Args:
        module: its path.

    Raises:
        UserError: It is none, or cannot be loaded.
    """
    cryptoki = Cryptoki(_PROBE_TIMEOUT)
    try:
        cryptoki.probe(module)
    except CryptokiError as error:
        raise UserError(f"{module} cannot be used as a PKCS#11 module: {error}") from error
    finally:
        cryptoki.close()


def list_tokens(module: str, *, timeout: float = TIMEOUT) -> Sequence[PresentToken]:
    """Tells which tokens a module has now. Blocks.

    Args:
        module: its path.
        timeout: seconds that it may take for anything.

    Raises:
        UserError: The module cannot be used.
    """
    cryptoki = Cryptoki(timeout)
    try:
        return _present(module, cryptoki.load(module), cryptoki.tokens())
    except CryptokiError as error:
        raise UserError(f"the PKCS#11 module {module} cannot be used: {error}") from error
    finally:
        cryptoki.close()


def _present(
    module: str, library: LibraryInfo, tokens: Sequence[TokenInfo]
) -> Sequence[PresentToken]:
    usable = [info for info in tokens if TokenFlags.TOKEN_INITIALIZED in info.flags]
    found = []
    for index, info in enumerate(usable):
        same = [other for other, each in enumerate(usable) if each.is_same_token(info)]
        number = same.index(index) + 1 if len(same) > 1 else 0
        found.append(PresentToken(module, library, info, number))
    return found
