# SPDX-License-Identifier: Apache-2.0
"""The sandbox: has this kernel what ccidd confines itself with."""

from collections.abc import Iterator

from ccidd.service.check.finding import Finding, error, ok, warning
from ccidd.service.configuration import Configuration
from ccidd.service.sandbox.confine import Mode
from ccidd.service.sandbox.parts import missing_support
from ccidd.service.where import Where


def look_at_sandbox(configuration: Configuration, where: Where) -> Iterator[Finding]:
    """Looks at what the kernel and its libraries have.

    Args:
        configuration: what is to be served.
        where: where that is said.
    """
    place = where.of("sandbox")
    mode = Mode(configuration.sandbox or Mode.AUTO.value)
    if mode is Mode.OFF:
        yield warning(place, "off: nothing keeps ccidd to what it needs")
        return
    missing = missing_support()
    report = error if mode is Mode.ON else warning
    for name, reason in missing.items():
        yield report(place, f"there is no {name}: {reason}")
    if not missing:
        yield ok(place, "ccidd can confine itself here")
