# SPDX-License-Identifier: Apache-2.0
"""Print each slot that pcscd has and whether a card is in it, without waiting for any card."""

from smartcard.scard import (
    SCARD_SCOPE_USER,
    SCARD_STATE_PRESENT,
    SCARD_STATE_UNAWARE,
    SCardEstablishContext,
    SCardGetStatusChange,
    SCardListReaders,
)

_result, context = SCardEstablishContext(SCARD_SCOPE_USER)
_result, names = SCardListReaders(context, [])
if names:
    wanted = [(name, SCARD_STATE_UNAWARE) for name in names]
    _result, states = SCardGetStatusChange(context, 0, wanted)
    for name, state, _atr in states:
        # pcsc-lite ends a reader's name with the numbers of the reader and of the slot.
        print(name.split()[-1], "full" if state & SCARD_STATE_PRESENT else "empty")
