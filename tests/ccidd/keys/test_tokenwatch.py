# SPDX-License-Identifier: Apache-2.0
"""Tokens that come and go: SoftHSM's, and cards in a PC/SC reader."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio

from ccidd.card.card import Card
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.references import KeyReference
from ccidd.errors import UserError
from ccidd.keys import tokenwatch
from ccidd.keys.cryptoki import Cryptoki, CryptokiError
from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.tokenwatch import PresentToken, TokenWatch, list_tokens, probe_module
from ccidd.reader.slot import Slot
from credentials import credential
from pcsc_tokens import OPENSC, reader, use_pcscd_in
from piv import new_memory
from tokens import SOFTHSM, SoftHsm

SOON = 30
"""Seconds to wait for news, which take half a second on a machine at rest."""


class Seen:
    """What a watch tells."""

    def __init__(self) -> None:
        self.history: list[list[str]] = []
        self._changed = trio.Event()

    def tell(self, tokens: Sequence[PresentToken]) -> None:
        self.history.append([token.info.label for token in tokens])
        self._changed.set()
        self._changed = trio.Event()

    async def labels(self, *expected: str, within: float = SOON) -> None:
        """Waits until these tokens, and no others, are there."""
        await self.wait_until(
            lambda: bool(self.history) and sorted(self.history[-1]) == sorted(expected), within
        )

    async def wait_until(self, condition: Callable[[], bool], within: float = SOON) -> None:
        with trio.fail_after(within):
            while not condition():
                await self._changed.wait()


@asynccontextmanager
async def watching(module: str = SOFTHSM, *, patience: float = 30) -> AsyncIterator[Seen]:
    seen = Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(TokenWatch(module, timeout=patience).run, seen.tell)
        yield seen
        nursery.cancel_scope.cancel()


_EARLIER: set[int] = set()
"""Processes of tests before, in which a module may hang yet."""


@pytest.fixture(autouse=True)
def _forget_earlier_workers() -> None:
    _EARLIER.clear()
    _EARLIER.update(workers())


def workers() -> list[int]:
    """The processes of PKCS#11 modules that the test has started."""
    found = subprocess.run(
        ["pgrep", f"--parent={os.getpid()}", "--full", "cryptoki_worker"],
        check=False,
        capture_output=True,
    )
    return [int(line) for line in found.stdout.split() if int(line) not in _EARLIER]


async def test_tokens_are_seen_when_they_are_made_taken_out_and_put_back(softhsm: SoftHsm) -> None:
    async with watching() as seen:
        await seen.labels(within=10)
        softhsm.add("one", [])
        await seen.labels("one")
        softhsm.add("two", [])
        await seen.labels("one", "two")
        softhsm.remove()
        await seen.labels()
        softhsm.bring_back()
        await seen.labels("one", "two")


async def test_nothing_is_told_twice(softhsm: SoftHsm) -> None:
    softhsm.add("one", [])
    async with watching() as seen:
        await seen.labels("one", within=10)
        await trio.sleep(3 * tokenwatch.POLL_INTERVAL)
        assert seen.history == [["one"]]


async def test_another_token_of_the_same_name_is_another(softhsm: SoftHsm) -> None:
    softhsm.add("one", [])
    async with watching() as seen:
        await seen.labels("one", within=10)
        softhsm.remove()
        softhsm.add("one", [])
        await seen.wait_until(lambda: len(seen.history) > 1)
        assert seen.history[-1] == ["one"]


def test_tokens_that_are_the_same_are_counted(softhsm: SoftHsm) -> None:
    softhsm.add("one", [])
    cryptoki = Cryptoki(10)
    try:
        library = cryptoki.load(SOFTHSM)
        tokens = cryptoki.tokens()
        (single,) = tokenwatch._present(SOFTHSM, library, tokens)
        first, second = tokenwatch._present(SOFTHSM, library, [*tokens, *tokens])
    finally:
        cryptoki.close()
    assert first.identity != second.identity
    assert (single.number, first.number, second.number) == (0, 1, 2)


async def test_a_module_that_crashes_is_started_again(softhsm: SoftHsm) -> None:
    async with watching() as seen:
        await seen.labels(within=10)
        for number in (signal.SIGSEGV, signal.SIGKILL):
            (process,) = workers()
            os.kill(process, number)
            # It is started again after a quarter of a second, or half of one.
            await trio.sleep(1)
            assert process not in workers()
        softhsm.add("one", [])
        await seen.labels("one", within=5)
        softhsm.remove()
        await seen.labels()


async def test_a_module_that_hangs_holds_up_nobody_and_is_started_again(softhsm: SoftHsm) -> None:
    async with watching(patience=1) as seen:
        await seen.labels(within=10)
        (first,) = workers()
        async with watching() as other:
            await other.labels(within=10)
            os.kill(first, signal.SIGSTOP)
            softhsm.add("one", [])
            await other.labels("one")
            assert seen.history == [[]]
            await seen.labels("one", within=5)


async def test_a_hanging_module_does_not_hold_up_the_end(softhsm: SoftHsm) -> None:
    async with watching() as seen:
        await seen.labels(within=10)
        (process,) = workers()
        os.kill(process, signal.SIGSTOP)
        await trio.sleep(tokenwatch.POLL_INTERVAL)
        began = trio.current_time()
    assert trio.current_time() - began < 1
    assert workers() == []
    assert softhsm.directory.exists()


async def test_a_module_that_cannot_be_loaded_is_tried_ever_later(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(b"none")
    with structlog.testing.capture_logs() as logs:
        async with watching(str(module)) as seen:
            await seen.wait_until(lambda: len(logs) >= 3, within=10)
            assert seen.history[-1] == []
    assert [entry["event"] for entry in logs] == ["token_module_failed"] * 3
    assert [entry["again_in"] for entry in logs] == [0.25, 0.5, 1]


# A module that waits for its tokens: OpenSC's, with a card in a reader of pcscd's.


@pytest.fixture
def piv() -> Card:
    keys = {KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256)}
    return piv_card(keys, new_memory())


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_pcscd_in(tmp_path, monkeypatch)
    return tmp_path


async def test_cards_are_seen_when_they_come_and_go(directory: Path, piv: Card) -> None:
    slot = Slot()
    async with reader(directory, slot), watching(OPENSC) as seen:
        await seen.labels(within=10)
        for _ in range(2):
            # Nothing is asked again and again meanwhile.
            await trio.sleep(1.5)
            told = len(seen.history)
            slot.insert(piv)
            await seen.labels("test P-256 0", within=10)
            slot.remove()
            await seen.labels(within=5)
            assert len(seen.history) == told + 2
        began = trio.current_time()
    assert workers() == []
    assert trio.current_time() - began < 5


async def test_a_pcscd_that_comes_and_goes_takes_its_cards_along(
    directory: Path, piv: Card
) -> None:
    async with watching(OPENSC) as seen:
        await seen.labels(within=10)
        for _ in range(2):
            async with reader(directory, Slot(piv)):
                await seen.labels("test P-256 0", within=10)
            await seen.labels(within=5)


async def test_a_process_that_waits_ends_with_those_who_wait_for_it(directory: Path) -> None:
    async with reader(directory, Slot()):
        cryptoki = Cryptoki(10)
        # The reader is this process's own.
        await trio.to_thread.run_sync(cryptoki.load, OPENSC)
        await trio.to_thread.run_sync(cryptoki.tokens)
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(CryptokiError, match="has ended"):
                    await trio.to_thread.run_sync(cryptoki.wait, 60)

            nursery.start_soon(wait)
            await trio.sleep(0.5)
            began = trio.current_time()
            cryptoki.end()
        assert trio.current_time() - began < 1
        cryptoki.close()


# Without watching.


def test_a_library_that_is_no_module() -> None:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    libc = next(line.split()[-1] for line in maps.splitlines() if "libc.so" in line)
    with pytest.raises(UserError, match=f"{libc}: it is no PKCS#11 module"):
        probe_module(libc)
    with pytest.raises(
        UserError, match=r"cannot be used as a PKCS#11 module: .*invalid ELF header"
    ):
        probe_module(__file__)
    probe_module(SOFTHSM)


def test_tokens_are_listed(softhsm: SoftHsm) -> None:
    assert list_tokens(SOFTHSM) == []
    softhsm.add("a token", [])
    (token,) = list_tokens(SOFTHSM)
    assert token.info.label == "a token"
    with pytest.raises(UserError, match=f"the PKCS#11 module {__file__} cannot be used: "):
        list_tokens(__file__)
