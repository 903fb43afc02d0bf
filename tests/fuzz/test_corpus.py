# SPDX-License-Identifier: Apache-2.0
"""The inputs that are kept: what tests know to be worth trying, and what once failed."""

import pytest

from fuzzing.corpus import CORPUS, TARGETS, kept, load


def test_each_target_has_inputs_and_no_others_do() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == TARGETS
    assert all(kept(target) for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_that_are_kept_do_no_harm(target: str) -> None:
    run = load(target)
    for path in kept(target):
        try:
            run(path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise
