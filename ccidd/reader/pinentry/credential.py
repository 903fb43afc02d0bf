# SPDX-License-Identifier: Apache-2.0
"""The PIN in a file, for machines that nobody sits at.

Source: systemd.exec(5), "Credentials" ($CREDENTIALS_DIRECTORY).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
import trio

from ccidd.errors import UserError
from ccidd.keys.files import CREDENTIAL, located, read_secret
from ccidd.reader.pinentry.source import (
    EntryRequest,
    NoPin,
    PinEntry,
    Pins,
    PinSource,
    VerificationRequest,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class CredentialPin(PinSource):
    """Answers each verification with the PIN in a file's first line.

    The file is read each time, so that another PIN can be put into it, and none is kept in memory.
    Modification is declined: the file could not follow it.

    Args:
        name: the file's path, or credential:NAME; a name without a slash is that of a credential
            as well, if systemd passes any.
        environ: where systemd says where they are.

    Attributes:
        path: the file.

    Raises:
        UserError: The file cannot be read, or holds something else than a PIN.
    """

    def __init__(self, name: str, environ: Mapping[str, str] = os.environ) -> None:
        if "CREDENTIALS_DIRECTORY" in environ and "/" not in name:
            name = CREDENTIAL + name.removeprefix(CREDENTIAL)
        self.path: Final = located(Path(name), environ)
        # A read that hangs holds up this source alone, and just one thread.
        self._limiter: Final = trio.CapacityLimiter(1)
        self._read()

    @property
    def can_modify(self) -> bool:
        """See `PinSource.can_modify`: never."""
        return False

    async def ask(self, request: EntryRequest) -> PinEntry:
        """See `PinSource.ask`."""
        if not isinstance(request, VerificationRequest):
            return await self._decline(request, "a file cannot change the PIN of a card")
        with trio.move_on_after(request.timeout):
            try:
                # Reading may take for ever, from a pipe or a network.
                pin = await trio.to_thread.run_sync(
                    self._read, abandon_on_cancel=True, limiter=self._limiter
                )
            except UserError as error:
                return await self._decline(request, str(error))
            if not request.accepts(pin):
                wanted = f"{request.min_digits} to {request.max_digits} digits are asked for"
                return await self._decline(request, f"{wanted}, and {self.path} has others")
            return Pins(current=pin)
        return NoPin.TIMED_OUT

    def _read(self) -> bytes:
        pin = read_secret(self.path)
        if not pin.isdigit():
            raise UserError(f"the first line of {self.path} is no PIN: it has not only digits")
        return pin

    async def _decline(self, request: EntryRequest, reason: str) -> NoPin:
        await trio.lowlevel.checkpoint()
        log.warning("pin_not_entered", slot=request.slot, reason=reason)
        return NoPin.CANCELLED
