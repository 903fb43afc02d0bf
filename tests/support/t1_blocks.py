# SPDX-License-Identifier: Apache-2.0
"""Blocks of T=1 that the tests of both ends say and hear."""

from hypothesis import strategies as st

from ccid_protocol.t1 import ErrorCode, IBlock, RBlock, SBlock, Supervisory, encode

GARBAGE = bytes.fromhex("00 00 02 9000 00")  # with a wrong LRC
RESYNCH = SBlock(Supervisory.RESYNCH)
RESYNCH_RESPONSE = SBlock(Supervisory.RESYNCH, response=True)
ABORT = SBlock(Supervisory.ABORT)
ABORT_RESPONSE = SBlock(Supervisory.ABORT, response=True)
WTX = SBlock(Supervisory.WTX, value=3)
WTX_RESPONSE = SBlock(Supervisory.WTX, response=True, value=3)
IFS = SBlock(Supervisory.IFS, value=40)
IFS_RESPONSE = SBlock(Supervisory.IFS, response=True, value=40)
EDC_ERROR = ErrorCode.REDUNDANCY_CODE
OTHER_ERROR = ErrorCode.OTHER

bits = st.integers(0, 1)
valid_blocks = (
    st.builds(IBlock, bits, st.booleans(), st.binary(max_size=40))
    | st.builds(RBlock, bits, st.sampled_from(ErrorCode))
    | st.sampled_from(
        [RESYNCH, RESYNCH_RESPONSE, IFS, IFS_RESPONSE, ABORT, ABORT_RESPONSE, WTX, WTX_RESPONSE]
    )
)
any_blocks = st.binary(max_size=300) | valid_blocks.map(encode)
