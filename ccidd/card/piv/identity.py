# SPDX-License-Identifier: Apache-2.0
"""Who a card is: its GUID and its last day.

Source: NIST SP 800-73-4, part 1, 3.1.2 (CHUID): neither changes once the card is issued.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from ccidd.card.piv.contents import guid_of
from ccidd.card.piv.records import Records
from ccidd.errors import UserError
from ccidd.keys.key import Credential


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a card.

    Attributes:
        guid: its GUID.
        expires: its last day, YYYYMMDD.
    """

    guid: uuid.UUID
    expires: str

    @classmethod
    def of(
        cls, records: Records, credentials: Collection[Credential], guid: uuid.UUID | None = None
    ) -> Self:
        """Gives the identity that a card was given, or else one that follows from its keys.

        Args:
            records: what the card remembers; a GUID there is the card's.
            credentials: its keys from outside.
            guid: its GUID otherwise, if it does not follow from the keys.

        Raises:
            UserError: It was given none, and has no keys from outside.
        """
        guid, expires = records.guid() or guid, records.expires()
        if credentials:
            guid = guid or guid_of(credentials)
            last = max(c.certificate.not_valid_after_utc for c in credentials)
            expires = expires or last.strftime("%Y%m%d")
        if guid is None or expires is None:
            raise UserError("the card has neither keys nor an identity; create it anew")
        return cls(guid, expires)

    @property
    def serial_number(self) -> int:
        """A number of 31 bits, for tools that want one."""
        return int.from_bytes(self.guid.bytes[:4]) & 0x7FFFFFFF
