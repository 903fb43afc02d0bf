# SPDX-License-Identifier: Apache-2.0
"""T=1, the transmission of APDUs in blocks, between an interface device and a card.

    blocks              the blocks ↔ bytes
    card                the card's end
    interface_device    the other end
    end                 what the two have in common

Source: ISO/IEC 7816-3:2006, clause 11. The ends take turns. `InterfaceDevice` begins, and `CardEnd`
answers each block with one block, except where a command is complete: then the card works, and its
response (or a request for more time) is the answer. Who sends what:

* I-blocks carry APDUs, one or several blocks to each (chaining, M bit). N(S) numbers them 0, 1, 0…
  in each direction.
* R-blocks acknowledge an I-block with the M bit, or ask for a block again. N(R) is the number of
  the I-block that is expected next.
* S-blocks are requests and responses: RESYNCH (from the interface device only), IFS, ABORT and WTX
  (from the card only).

An invalid block is no exception to either end: the rules of recovery answer it.
"""

from ccid_protocol.t1.blocks import (
    MAX_INF,
    Block,
    ErrorCode,
    IBlock,
    InvalidBlockError,
    RBlock,
    SBlock,
    Supervisory,
    decode,
    encode,
    is_node_address,
)
from ccid_protocol.t1.card import CARD_WORKS, CardEnd, CardWorks, CommandReady
from ccid_protocol.t1.end import DEFAULT_IFS, MAX_COMMAND, MAX_RESPONSE
from ccid_protocol.t1.interface_device import (
    Aborted,
    ExchangeEnd,
    IFSDAccepted,
    InterfaceDevice,
    ResponseReady,
    Resynchronized,
)

__all__ = [
    "CARD_WORKS",
    "DEFAULT_IFS",
    "MAX_COMMAND",
    "MAX_INF",
    "MAX_RESPONSE",
    "Aborted",
    "Block",
    "CardEnd",
    "CardWorks",
    "CommandReady",
    "ErrorCode",
    "ExchangeEnd",
    "IBlock",
    "IFSDAccepted",
    "InterfaceDevice",
    "InvalidBlockError",
    "RBlock",
    "ResponseReady",
    "Resynchronized",
    "SBlock",
    "Supervisory",
    "decode",
    "encode",
    "is_node_address",
]
