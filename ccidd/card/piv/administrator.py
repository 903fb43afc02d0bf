# SPDX-License-Identifier: Apache-2.0
"""Authentication of the PIV card application administrator, by the key 9B.

Source: NIST SP 800-73-4, part 2, 3.2.4 and appendix A.1 (external), A.2 (mutual authentication);
2.4.2 (a failed or aborted authentication ends what an earlier one gave).
"""

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from ccid_protocol import tlv
from ccid_protocol.apdu import StatusWord
from ccidd.card.application import CardError
from ccidd.card.piv.management_key import ManagementAlgorithm, ManagementKey
from ccidd.card.piv.records import Records

# Tags of the dynamic authentication template (part 2, table 7).
_WITNESS: Final = 0x80
_CHALLENGE: Final = 0x81
_RESPONSE: Final = 0x82
_ASKED: Final = (_RESPONSE, b"")


@dataclass(frozen=True, slots=True)
class _Pending:
    """An authentication that the host has begun.

    Attributes:
        tag: the data object in which the host answers.
        answer: what the host must answer.
    """

    tag: int
    answer: bytes = field(repr=False)


class Administrator:
    """The security status of the administrator.

    Args:
        records: where the administration key is.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._pending: _Pending | None = None
        self.is_authenticated = False

    def require(self) -> None:
        """Refuses a command that is the administrator's.

        Raises:
            CardError: The administrator is not authenticated.
        """
        if not self.is_authenticated:
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)

    def end(self) -> None:
        """Ends what an authentication has opened."""
        self._pending = None
        self.is_authenticated = False

    def authenticate(self, algorithm_identifier: int, fields: dict[int, bytes]) -> bytes:
        """Takes one step of an authentication.

        Args:
            algorithm_identifier: P1.
            fields: the data objects of the dynamic authentication template.

        Returns:
            The data objects of the answer's template; none if it has no template.
        """
        pending, self._pending = self._pending, None
        algorithm = ManagementAlgorithm.of(algorithm_identifier)
        if algorithm is None:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        key = self._records.management_key()
        if fields == {_CHALLENGE: b""}:
            return self._give_challenge(algorithm, key)
        if key is None:
            raise CardError(StatusWord.SECURITY_STATUS_NOT_SATISFIED)
        if key.algorithm is not algorithm:
            raise CardError(StatusWord.INCORRECT_P1_P2)
        # An empty data object 82 asks for one; where the answer has it anyway, it may be left out.
        steps = sorted((tag, value) for tag, value in fields.items() if (tag, value) != _ASKED)
        match steps:
            case [(0x80, b"")]:
                return self._give_witness(key)
            case [(0x82, response)]:
                self._check(pending, _RESPONSE, response)
                return b""
            case [(0x80, witness), (0x81, challenge)]:
                self._check(pending, _WITNESS, witness)
                return self._encrypt(key, challenge)
            case [(0x81, challenge)]:
                # Internal authentication: the card shows that it has the key. Only to who has shown
                # the same before: anyone else would have the card's own challenge encrypted by the
                # card, and return that.
                self.require()
                return self._encrypt(key, challenge)
            case _:
                raise CardError(StatusWord.INCORRECT_DATA)

    def _give_challenge(self, algorithm: ManagementAlgorithm, key: ManagementKey | None) -> bytes:
        """External authentication, step 1.

        Hosts also take random numbers from it, and do not ask for the key's algorithm before; they
        get theirs, which begins no authentication.
        """
        challenge = secrets.token_bytes(algorithm.block_size)
        if key is not None and key.algorithm is algorithm:
            self._pending = _Pending(_RESPONSE, key.encrypt(challenge))
        return tlv.encode(_CHALLENGE, challenge)

    def _give_witness(self, key: ManagementKey) -> bytes:
        """Mutual authentication, step 1."""
        witness = secrets.token_bytes(key.algorithm.block_size)
        self._pending = _Pending(_WITNESS, witness)
        return tlv.encode(_WITNESS, key.encrypt(witness))

    def _check(self, pending: _Pending | None, tag: int, answer: bytes) -> None:
        """Step 2 of both: the host shows that it has the key."""
        self.is_authenticated = (
            pending is not None
            and pending.tag == tag
            and hmac.compare_digest(pending.answer, answer)
        )
        self.require()

    def _encrypt(self, key: ManagementKey, challenge: bytes) -> bytes:
        if len(challenge) != key.algorithm.block_size:
            self.is_authenticated = False
            raise CardError(StatusWord.INCORRECT_DATA)
        return tlv.encode(_RESPONSE, key.encrypt(challenge))
