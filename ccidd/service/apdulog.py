# SPDX-License-Identifier: Apache-2.0
"""The log of what a reader does with its cards, at the level `debug`: each APDU in a line."""

import structlog

from ccidd.card.naming import Exchange
from ccidd.reader.slot import Slot
from ccidd.service.exchanges import ExchangeObserver
from ccidd.service.log import is_logged

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ApduLog(ExchangeObserver):
    """Logs what it sees, without secrets and without what is in APDUs."""

    def exchanged(self, slot: Slot, exchange: Exchange, seconds: float) -> None:
        """See `ExchangeObserver.exchanged`."""
        if is_logged("debug"):
            log.debug("apdu", slot=slot.index, text=exchange.text, ms=round(seconds * 1000, 1))

    def inserted(self, slot: Slot) -> None:
        """See `SlotObserver.inserted`."""
        log.debug("card_came", slot=slot.index)

    def removed(self, slot: Slot) -> None:
        """See `SlotObserver.removed`."""
        log.debug("card_went", slot=slot.index)

    def powered_on(self, slot: Slot, atr: bytes) -> None:
        """See `SlotObserver.powered_on`."""
        log.debug("card_powered_on", slot=slot.index, atr=atr.hex().upper())

    def powered_off(self, slot: Slot) -> None:
        """See `SlotObserver.powered_off`."""
        log.debug("card_powered_off", slot=slot.index)

    def failed(self, slot: Slot, error: Exception) -> None:
        """See `SlotObserver.failed`."""
        log.debug("card_did_not_answer", slot=slot.index, error=type(error).__name__)
