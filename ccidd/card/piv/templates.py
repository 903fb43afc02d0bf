# SPDX-License-Identifier: Apache-2.0
"""Data objects in command data fields, read so that what is malformed is refused with 6A80."""

from ccid_protocol import tlv
from ccid_protocol.apdu import StatusWord
from ccid_protocol.errors import RemoteProtocolError
from ccidd.card.application import CardError


def decode(data: bytes) -> dict[int, bytes]:
    """Reads data objects of which each tag may stand only once.

    Raises:
        CardError: They cannot be read.
    """
    try:
        return tlv.decode_to_dict(data)
    except RemoteProtocolError as error:
        raise CardError(StatusWord.INCORRECT_DATA) from error


def decode_template(data: bytes, tag: int) -> dict[int, bytes]:
    """Reads the data objects in a template.

    Raises:
        CardError: There is no such template, or it cannot be read.
    """
    template = decode(data).get(tag)
    if template is None:
        raise CardError(StatusWord.INCORRECT_DATA)
    return decode(template)
