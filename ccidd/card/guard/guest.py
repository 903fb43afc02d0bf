# SPDX-License-Identifier: Apache-2.0
"""Who the guest is, for people."""

from dataclasses import dataclass


@dataclass(slots=True)
class Guest:
    """The guest that is connected.

    Attributes:
        name: what to call it; it changes with each connection.
    """

    name: str = "the guest"
