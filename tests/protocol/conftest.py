# SPDX-License-Identifier: Apache-2.0
import pytest

from usbredir_pair import Pair, connected


@pytest.fixture
def pair() -> Pair:
    """A device that is connected, and its guest."""
    return connected()
