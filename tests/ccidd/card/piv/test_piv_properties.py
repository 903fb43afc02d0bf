# SPDX-License-Identifier: Apache-2.0
"""Whatever a host sends: a status word, no fault, and the state that a small model has."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from unittest import mock

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.piv.references import KeyReference
from ccidd.keys import generated
from ccidd.keys.key import KeyAlgorithm
from credentials import credential, private_key
from piv import PIN, PUK, WRONG, PivHost, inserted, new_memory

OTHER_PIN = b"654321\xff\xff"
DIGEST = bytes(31) + b"\1"
OBJECT = 0x5FC109


@dataclass
class Model:
    """The security status and contents of a card, as the standard has them."""

    extensions: bool
    pin: bytes = PIN
    tries: int = 3
    puk_tries: int = 3
    verified: bool = False
    fresh: bool = False
    administrator: bool = False
    keys: set[int] = field(default_factory=set)
    content: bytes = b""

    def command(self) -> None:
        """Any command but GENERAL AUTHENTICATE comes between VERIFY and signature."""
        if not self.extensions:
            self.fresh = False

    def compare(self, candidate: bytes) -> int:
        if not self.tries:
            return 0x6983
        if candidate != self.pin:
            self.tries -= 1
            self.verified = self.fresh = False
            return 0x63C0 + self.tries
        self.tries = 3
        return 0x9000


Step = tuple[str, *tuple[object, ...]]


async def verify(host: PivHost, model: Model, candidate: bytes) -> None:
    model.command()
    expected = model.compare(candidate)
    if expected == 0x9000:
        model.verified = model.fresh = True
    assert await host.verify(candidate) == expected


async def status(host: PivHost, model: Model) -> None:
    model.command()
    unverified = 0x63C0 + model.tries if model.tries else 0x6983
    assert await host.pin_status() == (0x9000 if model.verified else unverified)


async def log_out(host: PivHost, model: Model) -> None:
    model.verified = model.fresh = False
    assert (await host.send("0020FF80")).sw == 0x9000


async def change(host: PivHost, model: Model, old: bytes, new: bytes) -> None:
    model.command()
    expected = model.compare(old)
    if expected == 0x9000:
        model.pin, model.verified, model.fresh = new, True, False
    assert await host.sw(0x24, 0, 0x80, old + new) == expected


async def unblock(host: PivHost, model: Model, puk: bytes, new: bytes) -> None:
    model.command()
    if not model.puk_tries:
        expected = 0x6983
    elif puk != PUK:
        model.puk_tries -= 1
        model.verified = model.fresh = False
        expected = 0x63C0 + model.puk_tries
    else:
        model.puk_tries, model.pin, model.tries, expected = 3, new, 3, 0x9000
    assert await host.sw(0x2C, 0, 0x80, puk + new) == expected


async def administrate(host: PivHost, model: Model) -> None:
    if not model.extensions:
        model.fresh = False
    model.administrator = True
    assert await host.authenticate() == 0x9000


async def fail_to_administrate(host: PivHost, model: Model) -> None:
    if not model.extensions:
        model.fresh = False
    model.administrator = False
    assert (await host.general_authenticate(0x08, 0x9B, tlv.encode(0x82, bytes(16)))).sw == 0x6982


async def generate(host: PivHost, model: Model, reference: int) -> None:
    model.command()
    response = await host.sw(0x47, 0, reference, bytes.fromhex("AC03800111"))
    assert response == (0x9000 if model.administrator else 0x6982)
    if model.administrator:
        model.keys.add(reference)


async def use(host: PivHost, model: Model, reference: int) -> None:
    response = await host.use(reference, DIGEST, KeyAlgorithm.P_256)
    if reference not in model.keys:
        assert response.sw == (0x6A80 if model.extensions else 0x6A86)
        return
    allowed = {0x9C: model.fresh, 0x9E: True}.get(reference, model.verified)
    model.fresh = False
    assert response.sw == (0x9000 if allowed else 0x6982)


async def put(host: PivHost, model: Model, content: bytes) -> None:
    model.command()
    if model.administrator:
        model.content = content
    assert await host.put_object(OBJECT, content) == (0x9000 if model.administrator else 0x6982)


async def get(host: PivHost, model: Model) -> None:
    model.command()
    response = await host.get_data(OBJECT)
    if not model.verified:
        assert response.sw == 0x6982
    elif not model.content:
        assert response.sw == 0x6A82
    else:
        assert tlv.decode_to_dict(response.data)[0x53] == model.content


async def reinsert(host: PivHost, model: Model) -> None:
    model.verified = model.fresh = model.administrator = False
    await host.reinsert()


async def select(host: PivHost, model: Model) -> None:
    model.command()
    await host.select()


STEPS: dict[str, Callable[..., Awaitable[None]]] = {
    step.__name__: step
    for step in (
        verify,
        status,
        log_out,
        change,
        unblock,
        administrate,
        fail_to_administrate,
        generate,
        use,
        put,
        get,
        reinsert,
        select,
    )
}
pins = st.sampled_from([PIN, PIN, OTHER_PIN, WRONG])
references = st.sampled_from([0x9A, 0x9C, 0x9D, 0x9E])
steps = st.one_of(
    st.tuples(st.just("verify"), pins),
    st.tuples(st.sampled_from(["status", "log_out", "get", "reinsert", "select"])),
    st.tuples(st.sampled_from(["administrate", "administrate", "fail_to_administrate"])),
    st.tuples(st.just("change"), pins, st.sampled_from([PIN, OTHER_PIN])),
    st.tuples(st.just("unblock"), st.sampled_from([PUK, WRONG]), st.sampled_from([PIN, OTHER_PIN])),
    st.tuples(st.just("generate"), references),
    st.tuples(st.just("use"), references),
    st.tuples(st.just("put"), st.sampled_from([b"", b"\1", bytes(300)])),
)


@pytest.mark.parametrize("extensions", [False, True])
@given(script=st.lists(steps, min_size=20, max_size=40))
def test_the_card_is_in_the_state_that_the_model_is_in(
    extensions: bool,  # noqa: FBT001 (a parameter)
    script: list[Step],
) -> None:
    async def play() -> None:
        host = await inserted(vendor_extensions=extensions)
        model = Model(extensions)
        for name, *arguments in script:
            await STEPS[name](host, model, *arguments)

    with structlog.testing.capture_logs():
        trio.run(play)


# Anything


def template(tags: list[int]) -> st.SearchStrategy[bytes]:
    """Data objects with some of the tags, and values that may be data objects in turn."""
    values = st.one_of(st.binary(max_size=40), st.just(b""), st.just(bytes(32)))
    pairs = st.tuples(st.sampled_from(tags), values)
    return st.lists(pairs, max_size=4).map(
        lambda found: b"".join(tlv.encode(tag, value) for tag, value in found)
    )


TAGS = [0x5C, 0x53, 0x7C, 0x7E, 0x7F61, 0x80, 0x81, 0x82, 0x85, 0x9B, 0xAA, 0xAB, 0xAC]
TAGS += [1, 2, 3, 4, 5, 6, 7, 8]
bodies = st.one_of(
    st.binary(max_size=60),
    template(TAGS),
    template(TAGS).map(lambda inner: tlv.encode(0x7C, inner)),
    template(TAGS).map(lambda inner: tlv.encode(0xAC, inner)),
    st.sampled_from([b"\x5c\x03\x5f\xc1\x02", b"\x5c\x01\x7e", PIN, PIN + PIN, PUK + PIN]),
    st.sampled_from([bytes.fromhex("AC03800111"), bytes.fromhex("AC038001E0")]),
)
instructions = st.sampled_from(
    [0x20, 0x24, 0x2C, 0x47, 0x87, 0xA4, 0xC0, 0xCB, 0xDB, *range(0xF5, 0x100)]
)
parameters = st.one_of(
    st.sampled_from([0x00, 0x3F, 0xFF, 0x80, 0x81, 0x9A, 0x9B, 0x9C, 0x9E, 0x82, 0xF9, 0x08, 0x11]),
    st.integers(0, 255),
)
commands = st.builds(
    CommandAPDU,
    cla=st.sampled_from([0x00, 0x00, 0x00, 0x10]),
    ins=instructions,
    p1=parameters,
    p2=parameters,
    data=bodies,
    ne=st.sampled_from([0, 256]),
)
# ISO/IEC 7816-4:2013, 5.1.3: what SW1 may be.
SW1 = {0x61, 0x62, 0x63, 0x65, 0x67, 0x68, 0x69, 0x6A, 0x6D, 0x6E, 0x90}


@pytest.mark.parametrize("extensions", [False, True])
@settings(max_examples=200)
@given(script=st.lists(commands, max_size=30), administrated=st.booleans())
def test_any_commands_get_a_status_word_and_no_fault(
    extensions: bool,  # noqa: FBT001 (a parameter)
    script: list[CommandAPDU],
    administrated: bool,  # noqa: FBT001 (a parameter)
) -> None:
    async def play() -> None:
        keys = {
            KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256),
            KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.ED25519),
        }
        host = await inserted(keys, new_memory(attestation=True), vendor_extensions=extensions)
        if administrated:
            await host.authenticate()
            await host.verify()
        for command in script:
            response = await host.send(command)
            assert response.sw >> 8 in SW1, f"{command}: {response.sw:04X}"

    # New RSA keys take long.
    ready_made = mock.patch.object(generated, "generate_key", lambda kind: private_key(kind, 0))
    with structlog.testing.capture_logs() as logs, ready_made:
        trio.run(play)
    assert not [entry for entry in logs if entry["event"] == "card_fault"]
