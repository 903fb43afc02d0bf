# SPDX-License-Identifier: Apache-2.0
"""Commands about the questions that wait for an agent."""

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from ccid_protocol.qmp import JSON
from ccidd.service.control.context import Context
from ccidd.service.control.registry import command
from ccidd.service.control.roles import Role
from ccidd.service.control.shapes import Secret


@command(Role.OBSERVE | Role.AGENT)
async def query_requests(context: Context) -> Sequence[Mapping[str, JSON]]:
    """Lists what is asked at this moment, as PIN_REQUESTED and CONSENT_REQUESTED tell it."""
    await trio.lowlevel.checkpoint()
    return context.service.requests.pending()


@command(Role.AGENT)
async def answer_request(
    context: Context,
    *,
    id: int,  # noqa: A002 (the name that the events have)
    pin: Secret | None = None,
    new_pin: Secret | None = None,
    allow: bool | None = None,
) -> None:
    """Answers a request: with the PINs that it is for, or whether the person agrees."""
    await trio.lowlevel.checkpoint()
    context.service.requests.answer(id, pin=_bytes(pin), new_pin=_bytes(new_pin), allow=allow)


def _bytes(secret: Secret | None) -> bytearray | None:
    return None if secret is None else bytearray(secret.value.encode())


COMMANDS: Final = (query_requests, answer_request)
