# SPDX-License-Identifier: Apache-2.0
"""The answer to reset, what readers conclude from it, and the negotiation after it."""

from contextlib import suppress

from ccid_protocol import RemoteProtocolError
from ccid_protocol.atr import ATR
from ccid_protocol.ccid.parameters import (
    T0Parameters,
    T1Parameters,
    t0_parameters,
    t1_parameters,
)
from ccid_protocol.pps import PPS, answer
from fuzzing.script import Script


def run(data: bytes) -> None:
    """Reads a piece as an ATR, and what is behind it as a PPS request."""
    script = Script(data)
    raw = script.piece()
    try:
        atr = ATR.decode(raw)
    except RemoteProtocolError:
        return
    assert atr.encode() == raw
    assert ATR.decode(atr.for_t0().encode()).historical == atr.historical
    assert 0 <= atr.first_protocol <= 15
    for parameters in (t0_parameters(atr), t1_parameters(atr)):
        kind = T0Parameters if isinstance(parameters, T0Parameters) else T1Parameters
        assert kind.decode(parameters.encode()) == parameters
        assert parameters.data_rate(4000) > 0
    with suppress(RemoteProtocolError):
        request = PPS.decode(script.rest())
        accepted = answer(request, atr)
        assert PPS.decode(accepted.encode()) == accepted
        assert accepted.protocol == request.protocol
        assert accepted.pps1 in {None, request.pps1}
