# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Iterator

import pytest

from ccidd.errors import UserError
from ccidd.service.check.finding import Finding, error, ok, warning
from ccidd.service.check.running import Check, run_checks
from ccidd.service.state import OlderStateError
from ccidd.service.where import in_file


def two() -> Iterator[Finding]:
    yield ok("two", "one")
    yield warning("two", "two")


async def test_findings_are_told_in_the_order_of_the_checks() -> None:
    begun = threading.Event()

    def slow() -> Iterator[Finding]:
        assert begun.wait(60)
        yield ok("slow", "at last")

    def quick() -> Iterator[Finding]:
        yield ok("quick", "at once")
        begun.set()

    found = await run_checks([Check("slow", slow), Check("two", two), Check("quick", quick)])
    assert found == [
        ok("slow", "at last"),
        ok("two", "one"),
        warning("two", "two"),
        ok("quick", "at once"),
    ]


@pytest.mark.parametrize(
    ("raised", "finding"),
    [
        (UserError("cannot read x"), error("here", "cannot read x")),
        (in_file("f").error("it is wrong", "key"), error("f: key", "it is wrong")),
        (OlderStateError("too old"), warning("here", "too old")),
        (
            PermissionError(13, "Permission denied", "/x"),
            error("here", "cannot use /x: Permission denied"),
        ),
        (KeyError("x"), error("here", "this cannot be checked: KeyError('x')")),
    ],
)
async def test_what_is_raised_is_a_finding(raised: Exception, finding: Finding) -> None:
    def look() -> Iterator[Finding]:
        yield ok("here", "so far")
        raise raised

    assert await run_checks([Check("here", look)]) == [ok("here", "so far"), finding]


async def test_what_hangs_is_a_finding_and_holds_up_nothing() -> None:
    never = threading.Event()

    def hang() -> Iterator[Finding]:
        yield ok("hang", "so far")
        never.wait()

    found = await run_checks([Check("hang", hang), Check("two", two)], 0.1)
    never.set()
    assert found == [
        ok("hang", "so far"),
        error("hang", "no answer within 0.1 s: it hangs"),
        *two(),
    ]


def test_a_finding_is_one_line() -> None:
    assert f"{error('f: a.b', 'it is wrong')}" == "error    f: a.b: it is wrong"
    assert f"{ok('', 'all is well')}" == "ok       all is well"
