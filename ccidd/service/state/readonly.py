# SPDX-License-Identifier: Apache-2.0
"""A state that is only looked at: nothing is made, changed or locked for longer than a look."""

import os
import sqlite3

from ccidd.errors import UserError
from ccidd.service.state import schema
from ccidd.service.state.database import State
from ccidd.service.state.directory import check_directory, open_file
from ccidd.service.state.statekey import KeyFile, StateKey


class OlderStateError(UserError):
    """A state is an older ccidd's, and becomes this one's when it is next opened to be used."""


class ReadOnlyState(State):
    """A state that is there already; of its methods, those that change something fail.

    Raises:
        OlderStateError: See there.
        UserError: As `State`, or there is no state.
    """

    def _make_files(self) -> None:
        check_directory(self.directory)
        os.close(open_file(self._path, os.O_RDONLY))

    def _connect(self) -> sqlite3.Connection:
        address = f"{self._path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)

    def _open_schema(self, key_file: KeyFile | None) -> StateKey:
        version = self._checked_version()
        if version < schema.VERSION:
            raise OlderStateError(
                f"{self._path} was written by an older ccidd (schema {version}) and cannot be"
                " looked at; it is taken over when cards are next served"
            )
        key = self._load_key(key_file, may_make=False)
        schema.check_key(self._database, key, self._path)
        return key
