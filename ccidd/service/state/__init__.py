# SPDX-License-Identifier: Apache-2.0
"""What ccidd remembers: cards, their PINs and retry counters, and what is written on them.

One SQLite database in a state directory. `database` opens it and keeps the cards, `memory` is the
view that a card has of its part, `schema` tells what the tables hold, `readonly` lets one look at
them. The rules:

- A change is on the disk before its method returns, whole or not at all.
- What a card holds, keys above all, is encrypted (`statekey`); of a PIN only a slow hash is kept.
- A card is served by one process at a time, or by several that share a token's (`lock`).
- Files that others could have planted or can read are refused (`directory`).
"""

from ccidd.service.state.database import CardRecord, NewCard, State
from ccidd.service.state.directory import default_directory
from ccidd.service.state.memory import StoredMemory, StoredPin
from ccidd.service.state.pinhash import ScryptCost
from ccidd.service.state.readonly import OlderStateError, ReadOnlyState
from ccidd.service.state.statekey import KeyFile, find_key_file

__all__ = [
    "CardRecord",
    "KeyFile",
    "NewCard",
    "OlderStateError",
    "ReadOnlyState",
    "ScryptCost",
    "State",
    "StoredMemory",
    "StoredPin",
    "default_directory",
    "find_key_file",
]
