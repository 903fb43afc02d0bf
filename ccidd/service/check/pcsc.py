# SPDX-License-Identifier: Apache-2.0
"""This host's readers: is pcscd there, does it let us in, and which readers has it.

Source: pcsc-lite, pcscd(8), "POLKIT"; PC/SC Specification 2.01.14, part 5.
"""

from collections.abc import Iterator
from typing import Final

from ccidd.service.cards import open_pcsc
from ccidd.service.check.finding import Finding, error, ok, warning
from ccidd.service.options import CardOptions

_SECURITY_VIOLATION: Final = 0x8010006A

_NOT_LET_IN: Final = "polkit does not let this user in: docs/hardware.md has the rule that does"
_NOT_THERE: Final = "is pcscd there? run: systemctl enable --now pcscd.socket"


def look_at_reader(options: CardOptions) -> Iterator[Finding]:
    """Looks at the readers that a `--card=pcsc` follows.

    Raises:
        UserError: pyscard is not installed.
    """
    open_pcsc(options)
    # It is an optional dependency, which is there if that went well.
    from ccidd.card.passthrough.winscard import Context, PcscError  # noqa: PLC0415
    from ccidd.service.pcsc import is_named  # noqa: PLC0415

    context = Context()
    try:
        context.establish()
        readers = context.readers()
        states = context.wait_for_change(dict.fromkeys(readers, 0), 0) if readers else {}
    except PcscError as failed:
        advice = _NOT_LET_IN if failed.code == _SECURITY_VIOLATION else _NOT_THERE
        yield error(options.where, f"{failed}; {advice}")
        return
    finally:
        context.close()
    pattern = options.one("reader") or ""
    ours = {name: state for name, state in (states or {}).items() if is_named(name, pattern)}
    if not ours:
        there = ", ".join(repr(name) for name in readers) or "none"
        yield warning(
            options.where.of("reader"), f"there is no such reader now; there are: {there}"
        )
    for name, state in ours.items():
        if state.is_present:
            yield ok(
                options.where, f"the reader {name!r} has a card with the ATR {state.atr.hex()}"
            )
        else:
            yield warning(options.where, f"the reader {name!r} has no card in it now")
