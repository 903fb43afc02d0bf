# SPDX-License-Identifier: Apache-2.0
"""Names for what hosts and cards say to each other: lines for people, of APDUs that may be secret.

    describe        commands and responses
    status          status words
    iso             what all cards have; SELECT
    piv, cac, openpgp   the applications that are known
    conversation    which application is selected, and what chains make

What stands in a line is the header, and of the data field what names something: the identifier of
an application, the tag of a data object, the algorithm of a key. The rest of the data never does,
and of a PIN not even how long it is.
"""

from ccidd.card.naming.conversation import Conversation, Exchange
from ccidd.card.naming.describe import describe, describe_response
from ccidd.card.naming.status import describe_status

__all__ = ["Conversation", "Exchange", "describe", "describe_response", "describe_status"]
