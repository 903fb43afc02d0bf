# SPDX-License-Identifier: Apache-2.0
"""Cards that `ccidd card` is tried on, and what has become of them."""

from collections.abc import Callable

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from ccidd.errors import UserError
from ccidd.keys.generated import private_key_pem
from ccidd.keys.key import KeyAlgorithm
from ccidd.service.cardkeys import keys_in
from ccidd.service.state import State, StoredPin
from credentials import credential, private_key

P_256, P_384 = KeyAlgorithm.P_256, KeyAlgorithm.P_384

Command = Callable[..., str]


def refused(card: Command, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        card(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def matches(state: State, name: str, reference: int, value: bytes) -> bool:
    pin = StoredPin(state, state.card(name).guid, reference)
    return trio.run(pin.compare, value.ljust(8, b"\xff"))


def keys(state: State, name: str) -> list[str]:
    stored = keys_in(state.contents(state.card(name).guid))
    return [f"{key.reference:02X} {key.algorithm.value}" for key in stored]


def pem(algorithm: KeyAlgorithm, number: int = 0) -> bytes:
    """A key and its certificate."""
    return private_key_pem(private_key(algorithm, number)) + credential(
        algorithm, number
    ).certificate.public_bytes(Encoding.PEM)
