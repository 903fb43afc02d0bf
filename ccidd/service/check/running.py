# SPDX-License-Identifier: Apache-2.0
"""Runs checks side by side, and waits for none of them for ever."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from ccidd.errors import UserError
from ccidd.service.check.finding import Finding, error, refusal

Look: TypeAlias = Callable[[], Iterator[Finding]]
"""Finds things, one after the other; what it raises (UserError) is one as well. It may block."""

TIMEOUT: Final = 30.0
"""Seconds that a check has."""

_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        where: what it looks at, for people.
        look: looks at it.
    """

    where: str
    look: Look


async def run_checks(checks: Sequence[Check], seconds: float = TIMEOUT) -> list[Finding]:
    """Runs checks.

    Args:
        checks: the checks.
        seconds: what each has; what it has found until then counts.

    Returns:
        What they have found, in their order.
    """
    found: list[list[Finding]] = [[] for _ in checks]
    limiter = trio.CapacityLimiter(_THREADS)
    async with trio.open_nursery() as nursery:
        for check, findings in zip(checks, found, strict=True):
            nursery.start_soon(_run, check, findings, seconds, limiter)
    return [finding for findings in found for finding in findings]


async def _run(
    check: Check, findings: list[Finding], seconds: float, limiter: trio.CapacityLimiter
) -> None:
    seen: list[Finding] = []

    def look() -> None:
        try:
            # One by one, so that what was found before it hangs counts.
            for finding in check.look():
                seen.append(finding)  # noqa: PERF402
        except UserError as refused:
            seen.append(refusal(refused, where=check.where))
        except OSError as refused:
            text = f"cannot use {refused.filename}: {refused.strerror}"
            seen.append(error(check.where, text))
        except Exception as fault:  # noqa: BLE001 (it costs this check alone)
            seen.append(error(check.where, f"this cannot be checked: {fault!r}"))

    async with limiter:
        with trio.move_on_after(seconds) as scope:
            await trio.to_thread.run_sync(
                look, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )
    findings += seen
    if scope.cancelled_caught:
        findings.append(error(check.where, f"no answer within {seconds:g} s: it hangs"))
