# SPDX-License-Identifier: Apache-2.0
"""A minute of new inputs, shared by all targets; others each day, the same all day."""

import time
from datetime import UTC, datetime
from typing import Final

import pytest

from fuzzing.corpus import TARGETS, keep_finding, kept, load
from fuzzing.mutation import inputs

SECONDS: Final = 60
"""For all targets together."""


@pytest.mark.parametrize("target", TARGETS)
def test_new_inputs_do_no_harm(target: str) -> None:
    run = load(target)
    seed = f"{target} {datetime.now(UTC):%Y-%m-%d}"
    end = time.monotonic() + SECONDS / len(TARGETS)
    for data in inputs(seed, [path.read_bytes() for path in kept(target)]):
        try:
            run(data)
        except Exception as error:
            error.add_note(f"seed {seed!r}; the input is {keep_finding(target, data)}")
            raise
        if time.monotonic() > end:
            break
