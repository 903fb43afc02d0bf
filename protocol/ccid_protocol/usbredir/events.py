# SPDX-License-Identifier: Apache-2.0
"""What `Connection.next_event` gives beside the packets themselves."""

from dataclasses import dataclass, field

from ccid_protocol.usbredir.packets import TransferAnswer


@dataclass(frozen=True, slots=True)
class Resumed:
    """The guest did not say hello: it was migrated, and goes on with the session before.

    No Hello may be sent any more. The packet that showed it is the next event; see
    `Connection.repeat` for what is to be done after it.
    """


@dataclass(frozen=True, slots=True)
class LostData:
    """Bulk IN data that was sent, and that the guest threw away.

    Attributes:
        endpoint: the endpoint.
        data: bytes, left out of the repr.
        order: grows with each answer of the connection. Of several pieces that are lost, the one
            with the lowest number comes first, whatever the order of the cancels.
    """

    endpoint: int
    data: bytes = field(repr=False)
    order: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The guest takes a request back (cancel_data_packet).

    QEMU cancels only what it has seen no answer to, and throws away an answer that crosses the
    cancel on its way. So there are two cases:

    * The request still waits: `answer` must be sent, before any other answer with this id, and the
      request is forgotten.
    * It was answered: nothing must be sent. If the answer held bulk IN data, no guest will ever see
      it, and `lost` gives it back: it belongs in front of whatever the next requests for that
      endpoint get. The connection remembers the last 64 answers for this, and forgets the data of
      all of them when the guest resets or configures the device, and with the device itself.

    Attributes:
        id: the id of the request.
        answer: what must be sent now, None if nothing.
        lost: what must be sent again later, None if nothing.
    """

    id: int
    answer: TransferAnswer | None = None
    lost: LostData | None = None
