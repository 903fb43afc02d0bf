# SPDX-License-Identifier: Apache-2.0
import math
import os
import re

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from ccidd.card.guard.consent import ConsentRequest
from ccidd.card.guard.operations import CONFIRMABLE, Operation
from ccidd.reader.pinentry.consent import PinentryConsent
from ccidd.reader.pinentry.program import Pinentry, PinentryProgram
from scripted_pinentry import CURSES, TTY, Act, Flavour, ScriptedPinentry
from terminal import Terminal

SIGN = frozenset({Operation.SIGN})


def request(
    guest: str = "guest win11",
    *,
    operations: frozenset[Operation] = SIGN,
    reference: str | None = "9C",
    key: str | None = "digital signature",
    timeout: float = 30,
) -> ConsentRequest:
    return ConsentRequest(
        guest=guest,
        card="PIV card",
        operations=operations,
        reference=reference,
        key=key,
        timeout=timeout,
    )


QUESTIONS = [
    (request(), "guest win11 asks to sign\nwith the digital signature key (9C)\nof the PIV card."),
    (
        request("qemu 17", operations=frozenset({Operation.DECRYPT}), key=None),
        "qemu 17 asks to decrypt\nwith the key 9C\nof the PIV card.",
    ),
    (
        request(operations=CONFIRMABLE, reference=None, key=None),
        "guest win11 asks to sign or decrypt\nwith a key\nof the PIV card.",
    ),
]


@pytest.mark.parametrize(("asked", "question"), QUESTIONS)
async def test_the_person_is_told_what_it_is_about(
    nursery: trio.Nursery, asked: ConsentRequest, question: str
) -> None:
    scripted = ScriptedPinentry(nursery, [Act.ALLOWS])
    assert await PinentryConsent(Pinentry("scripted", scripted.open)).ask(asked)
    assert scripted.arguments("SETDESC") == [question]
    assert scripted.arguments("SETTIMEOUT") == ["30"]


async def test_a_name_does_not_hide_what_is_asked(nursery: trio.Nursery) -> None:
    scripted = ScriptedPinentry(nursery, [Act.REFUSES])
    consent = PinentryConsent(Pinentry("scripted", scripted.open))
    assert not await consent.ask(request("nice\nguest \x1b[2J" + "x" * 500))
    (question,) = scripted.arguments("SETDESC")
    first, *others = question.split("\n")
    assert first.startswith("nice guest  [2Jxxx")
    assert others == ["with the digital signature key (9C)", "of the PIV card."]


# Real pinentries.


def consent(flavour: Flavour, terminal: Terminal) -> PinentryConsent:
    environ = {"PATH": os.environ["PATH"], "GPG_TTY": terminal.name, "TERM": "xterm"}
    return PinentryConsent(PinentryProgram(flavour.program, {**environ, "LC_ALL": "C.UTF-8"}))


KEYS = {
    TTY: {Act.ALLOWS: "a", Act.REFUSES: "r"},
    CURSES: {Act.ALLOWS: "\r", Act.REFUSES: "\t\r"},
}
PROMPTS = {TTY: r"\]\? $", CURSES: r"\x1b\[\?1049h.*<Refuse>"}

both = pytest.mark.parametrize("flavour", [TTY, CURSES], ids=lambda flavour: flavour.program)


@both
@pytest.mark.parametrize("act", [Act.ALLOWS, Act.REFUSES])
async def test_a_person_answers_at_a_real_pinentry(
    flavour: Flavour, act: Act, terminal: Terminal
) -> None:
    async def person() -> None:
        await terminal.sees(PROMPTS[flavour])
        await terminal.types(KEYS[flavour][act])

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person)
            assert await consent(flavour, terminal).ask(request()) is (act is Act.ALLOWS)
    shown = re.sub(r"\s+", " ", terminal.text)
    assert "guest win11 asks to sign" in shown
    assert "with the digital signature key (9C)" in shown
    assert terminal.is_as_before


@both
async def test_a_person_who_does_not_answer_has_refused(
    flavour: Flavour, terminal: Terminal
) -> None:
    with trio.fail_after(60):
        assert not await consent(flavour, terminal).ask(request(timeout=1.5))
    assert terminal.is_as_before


@both
async def test_a_question_that_is_cancelled_leaves_nothing_behind(
    flavour: Flavour, terminal: Terminal
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consent(flavour, terminal).ask, request(timeout=math.inf))
            await terminal.sees(PROMPTS[flavour])
            nursery.cancel_scope.cancel()
    assert terminal.is_as_before


async def test_a_pinentry_that_fails_is_a_refusal_with_a_reason(nursery: trio.Nursery) -> None:
    failing = ScriptedPinentry(nursery, answers={"": "ERR 83886340 no display"})
    with capture_logs() as logs:
        assert not await PinentryConsent(Pinentry("scripted", failing.open)).ask(request())
    assert [event["event"] for event in logs] == ["pinentry_failed"]
