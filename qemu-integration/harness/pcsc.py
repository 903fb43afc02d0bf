# SPDX-License-Identifier: Apache-2.0
"""APDUs that a guest sends through PC/SC as they are, without a card driver in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.guest import Guest

_SCRIPT = """\
import sys
from smartcard.System import readers

connection = readers()[0].createConnection()
connection.connect()
for line in sys.stdin:
    data, sw1, sw2 = connection.transmit(list(bytes.fromhex(line)))
    print(bytes([*data, sw1, sw2]).hex())
"""


async def transmit(guest: Guest, commands: Sequence[bytes]) -> list[bytes]:
    """Send commands to the card in the guest's first reader, in one connection.

    Args:
        guest: Where.
        commands: Command APDUs, as SCardTransmit gets them.

    Returns:
        The response APDUs.

    Raises:
        CommandError: There is no card, or a command got no answer.
    """
    lines = "".join(f"{command.hex()}\n" for command in commands)
    ran = await guest.run("python3", "-c", _SCRIPT, input=lines.encode())
    return [bytes.fromhex(line) for line in ran.text.splitlines()]
