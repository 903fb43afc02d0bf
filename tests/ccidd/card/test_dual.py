# SPDX-License-Identifier: Apache-2.0
"""A card that is both PIV card and CAC: one PIN, one set of keys, and the rules of each side."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given
from hypothesis import strategies as st

from cac import ACA, CCC, PKI, powered, read_buffer, select, send, whole
from ccid_protocol import tlv
from ccid_protocol.apdu import CommandAPDU
from ccidd.card.cac import simpletlv
from ccidd.card.cac.simpletlv import SimpleTlv
from ccidd.card.dual import dual_card
from ccidd.card.emulated import EmulatedCard
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.management_key import DEFAULT_MANAGEMENT_KEY as MANAGEMENT_KEY
from ccidd.card.piv.personalisation import certificate_contents, factory_contents, key_contents
from ccidd.card.piv.records import DEFAULT_PINS, object_name
from ccidd.card.piv.references import KeyReference, PinReference, certificate_tag
from ccidd.errors import UserError
from ccidd.keys.key import KeyAlgorithm
from credentials import credential, private_key
from memory import VolatileMemory, VolatilePin

PIN, WRONG_PIN, PUK = b"123456\xff\xff", b"654321\xff\xff", b"12345678"
PIV = "A00000030800001000"
KEYS = {
    KeyReference.AUTHENTICATION: credential(KeyAlgorithm.P_256),
    KeyReference.SIGNATURE: credential(KeyAlgorithm.P_384),
    KeyReference.KEY_MANAGEMENT: credential(KeyAlgorithm.RSA_2048),
    KeyReference.CARD_AUTHENTICATION: credential(KeyAlgorithm.P_256, 1),
}
PIN_STATUS = {PIV: "00200080", ACA: "00200000"}


def new_memory() -> VolatileMemory:
    memory = VolatileMemory(
        {
            PinReference.GLOBAL_PIN: VolatilePin(b"not used"),
            PinReference.APPLICATION_PIN: VolatilePin(PIN),
            PinReference.PUK: VolatilePin(PUK),
        }
    )
    memory._contents["cac/0200"] = simpletlv.encode(SimpleTlv(0x01, b"Marie"))
    return memory


@pytest.fixture
async def card() -> EmulatedCard:
    card = dual_card(KEYS, new_memory())
    await card.power_on()
    return card


async def verify(card: EmulatedCard, side: str, pin: bytes = PIN) -> str:
    await select(card, side)
    return await send(card, PIN_STATUS[side] + f"{len(pin):02X}{pin.hex()}")


async def status(card: EmulatedCard, side: str) -> str:
    await select(card, side)
    return await send(card, PIN_STATUS[side])


async def test_the_atrs_of_all_kinds_of_cards_are_different() -> None:
    cards = [dual_card(KEYS, new_memory()), piv_card(KEYS, new_memory()), await powered()]
    atrs = [await card.power_on() for card in cards]
    assert len({atr.encode() for atr in atrs}) == len({atr.for_t0().encode() for atr in atrs}) == 3


async def test_both_sides_have_the_same_keys_but_for_the_one_without_a_pin(
    card: EmulatedCard,
) -> None:
    references = [
        KeyReference.AUTHENTICATION,
        KeyReference.SIGNATURE,
        KeyReference.KEY_MANAGEMENT,
    ]
    for number, reference in enumerate(references):
        await select(card, f"{PKI}{number:02X}")
        der = KEYS[reference].certificate_der()
        assert await read_buffer(card, 2) == b"\0" + der
        await select(card, PIV)
        tag = reference.certificate_tag.to_bytes(3)
        command = CommandAPDU(0, 0xCB, 0x3F, 0xFF, b"\x5c\x03" + tag, 65536, True)
        assert tlv.encode(0x70, der) in (await whole(card, command)).data
    assert await send(card, f"00A4040007{PKI}0300") == "6A82"


async def test_the_tries_are_common(card: EmulatedCard) -> None:
    assert await verify(card, PIV, WRONG_PIN) == "63C2"
    assert await verify(card, ACA, WRONG_PIN) == "63C1"
    assert await status(card, PIV) == "63C1"
    assert await verify(card, PIV, WRONG_PIN) == "63C0"
    assert await verify(card, ACA) == "6983"


async def test_the_status_of_piv_ends_with_another_selection_and_opens_nothing_there(
    card: EmulatedCard,
) -> None:
    assert await verify(card, PIV) == "9000"
    assert await status(card, PIV) == "9000"
    assert await status(card, ACA) == "63C3"
    assert await status(card, PIV) == "63C3"


async def test_the_status_of_the_cac_side_lasts_until_the_reset_and_opens_nothing_in_piv(
    card: EmulatedCard,
) -> None:
    assert await verify(card, ACA) == "9000"
    assert await status(card, PIV) == "63C3"
    challenge = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, bytes(32)))
    assert await send(card, CommandAPDU(0, 0x87, 0x11, 0x9A, challenge, 256)) == "6982"
    await select(card, f"{PKI}00")
    signature = await whole(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(range(32))))
    key = KEYS[KeyReference.AUTHENTICATION].key.public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature.data, bytes(range(32)), ec.ECDSA(Prehashed(hashes.SHA256())))
    await card.power_on()
    assert await status(card, ACA) == "63C3"


@pytest.mark.parametrize("side", [PIV, ACA])
async def test_a_wrong_pin_on_either_side_ends_both(card: EmulatedCard, side: str) -> None:
    await verify(card, ACA)
    assert await verify(card, side, WRONG_PIN) == "63C2"
    assert await status(card, ACA) == "63C2"
    assert await status(card, PIV) == "63C2"


@pytest.mark.parametrize(("command", "old"), [("00240080", PIN), ("002C0080", PUK)])
async def test_a_new_pin_ends_what_the_old_one_opened(
    card: EmulatedCard, command: str, old: bytes
) -> None:
    await verify(card, ACA)
    await select(card, PIV)
    assert await send(card, f"{command}10{old.hex()}{WRONG_PIN.hex()}") == "9000"
    assert await status(card, ACA) == "63C3"
    assert await verify(card, ACA, WRONG_PIN) == "9000"


async def test_other_numbers_of_tries_end_it_too() -> None:
    memory = new_memory()
    await memory.store(factory_contents(MANAGEMENT_KEY))
    card = dual_card(KEYS, memory, vendor_extensions=True)
    await verify(card, ACA)
    await verify(card, PIV)
    await administrate(card)
    assert await send(card, "00FA0505") == "9000"
    assert await status(card, ACA) == "63C5"


async def administrate(card: EmulatedCard) -> None:
    """Authenticates the administrator of the PIV side (SP 800-73-4, part 2, A.1)."""
    algorithm = MANAGEMENT_KEY.algorithm
    asked = await send(card, f"0087{algorithm:02X}9B047C02810000")
    challenge = bytes.fromhex(asked[8:-4])
    response = tlv.encode(0x7C, tlv.encode(0x82, MANAGEMENT_KEY.encrypt(challenge)))
    assert await send(card, CommandAPDU(0, 0x87, algorithm, 0x9B, response)) == "9000"


async def test_keys_that_are_made_in_piv_are_there_on_the_cac_side(card: EmulatedCard) -> None:
    made = credential(KeyAlgorithm.P_256, 2)
    contents = key_contents(0x82, private_key(KeyAlgorithm.P_256, 2))
    memory = new_memory()
    card = dual_card(KEYS, memory)
    assert await send(card, f"00A4040007{PKI}0300") == "6A82"
    await memory.store(contents)
    assert await send(card, f"00A4040007{PKI}0300") == "6A82"
    await memory.store(certificate_contents(0x82, made.certificate))
    await select(card, f"{PKI}03")
    assert await read_buffer(card, 2) == b"\0" + made.certificate_der()
    await verify(card, ACA)
    await select(card, f"{PKI}03")
    assert (await whole(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(32)))).sw == 0x9000
    # They go while their applet is selected, and what a host puts there may be anything.
    for value in (b"", b"\x70", b"\x70\x00", b"\x71\x01\x01"):
        await memory.store({object_name(certificate_tag(0x82)): value})
        assert await send(card, CommandAPDU(0x80, 0x42, 0, 0, bytes(32))) == "6900"
        assert await send(card, "8052000002020202") == "6900"
        assert await send(card, "8056010000") == "6900"


async def test_a_compressed_certificate_stays_compressed(card: EmulatedCard) -> None:
    memory = new_memory()
    value = tlv.encode(0x70, b"compressed") + tlv.encode(0x71, b"\1") + tlv.encode(0xFE)
    await memory.store({object_name(certificate_tag(0x9A)): value})
    card = dual_card(KEYS, memory)
    await select(card, f"{PKI}00")
    assert await read_buffer(card, 2) == b"\1compressed"


async def test_a_change_on_either_side_is_one_of_both() -> None:
    memory = new_memory()
    await memory.store({DEFAULT_PINS: bytes([PinReference.APPLICATION_PIN, PinReference.PUK])})
    card = dual_card(KEYS, memory)
    await card.power_on()
    await select(card, ACA)
    assert await send(card, f"0024000010{PIN.hex()}{WRONG_PIN.hex()}") == "9000"
    assert memory.contents[DEFAULT_PINS] == bytes([PinReference.PUK])
    assert await send(card, PIN_STATUS[ACA]) == "9000"
    assert await verify(card, PIV, WRONG_PIN) == "9000"
    assert await send(card, f"0024008010{WRONG_PIN.hex()}{PIN.hex()}") == "9000"
    assert await status(card, ACA) == "63C3"
    assert await verify(card, ACA) == "9000"


async def test_the_chip_has_the_identity_of_the_card() -> None:
    identifiers = set()
    for guid in (uuid.UUID(int=1), uuid.UUID(int=2)):
        memory = new_memory()
        await memory.store(factory_contents(None, guid=guid))
        card = dual_card({}, memory)
        await select(card, CCC)
        identifiers.add((await read_buffer(card, 2))[7:21])
    assert len(identifiers) == 2


async def test_selection_is_as_iso_says(card: EmulatedCard) -> None:
    await select(card, CCC)
    # What is not found leaves the applet, and P2 says that no data are wanted.
    assert await send(card, "00A4040007A0000000790199") == "6A82"
    assert (await send(card, "8056010017")).endswith("9000")
    assert await send(card, f"00A4040C07{CCC}") == "9000"
    assert await send(card, f"00A4040007{CCC}") == "610D"
    # PIV is found by a part of its name, and knows no class 80.
    assert (await send(card, "00A4040005A00000030800")).endswith("9000")
    assert await send(card, "8056010017") == "6E00"
    assert await send(card, "00A40200020100") == "6A82"


async def test_windows_is_not_told_of_another_driver(card: EmulatedCard) -> None:
    assert await send(card, "00A404000BA0000003974349445F010000") == "6A82"


async def test_what_is_in_the_memory_is_in_the_containers(card: EmulatedCard) -> None:
    await select(card, "A0000000790200")
    assert await read_buffer(card, 1) == bytes.fromhex("0105")


async def test_a_broken_object_is_refused() -> None:
    memory = new_memory()
    memory._contents["cac/0201"] = b"\1"
    with pytest.raises(UserError, match="cac/0201"):
        dual_card(KEYS, memory)


# Any sequence: the state is that of a model.


@dataclass
class Model:
    """The security statuses of both sides."""

    pin: bytes = PIN
    tries: int = 3
    selected: str = PIV
    verified: dict[str, bool] = field(default_factory=lambda: {PIV: False, ACA: False})

    def compare(self, candidate: bytes) -> str:
        if not self.tries:
            return "6983"
        if candidate == self.pin:
            self.tries = 3
            return "9000"
        self.tries -= 1
        self.verified = {PIV: False, ACA: False}
        return f"63C{self.tries}"


async def to_select(card: EmulatedCard, model: Model, side: str) -> None:
    await select(card, side)
    if side == ACA:
        model.verified[PIV] = False
    model.selected = side


async def to_verify(card: EmulatedCard, model: Model, candidate: bytes) -> None:
    expected = model.compare(candidate)
    if expected == "9000":
        model.verified[model.selected] = True
    assert await send(card, PIN_STATUS[model.selected] + f"08{candidate.hex()}") == expected


async def to_change(card: EmulatedCard, model: Model, old: bytes, new: bytes) -> None:
    expected = model.compare(old)
    if expected == "9000":
        model.pin = new
        model.verified = {side: side == model.selected for side in model.verified}
    reference = PIN_STATUS[model.selected][-2:]
    assert await send(card, f"002400{reference}10{old.hex()}{new.hex()}") == expected


async def to_ask(card: EmulatedCard, model: Model) -> None:
    unverified = f"63C{model.tries}" if model.tries else "6983"
    expected = "9000" if model.verified[model.selected] else unverified
    assert await send(card, PIN_STATUS[model.selected]) == expected


async def to_sign(card: EmulatedCard, model: Model) -> None:
    if model.selected == PIV:
        challenge = tlv.encode(0x7C, tlv.encode(0x82), tlv.encode(0x81, bytes(31) + b"\1"))
        command = CommandAPDU(0, 0x87, 0x11, 0x9A, challenge, 256)
        refused = 0x6982
    else:
        await select(card, f"{PKI}00")
        command, refused = CommandAPDU(0x80, 0x42, 0, 0, bytes(31) + b"\1"), 0x6985
    allowed = model.verified[model.selected]
    assert (await whole(card, command)).sw == (0x9000 if allowed else refused)
    await select(card, model.selected)


async def to_reset(card: EmulatedCard, model: Model) -> None:
    model.verified = {PIV: False, ACA: False}
    await card.power_on()
    await select(card, model.selected)


PINS = st.sampled_from([PIN, PIN, PIN, WRONG_PIN])
STEPS = st.one_of(
    st.tuples(st.just(to_select), st.sampled_from([PIV, ACA])),
    st.tuples(st.just(to_verify), PINS),
    st.tuples(st.just(to_change), PINS, st.sampled_from([PIN, WRONG_PIN])),
    st.tuples(st.sampled_from([to_ask, to_ask, to_sign, to_sign, to_reset])),
)


@given(script=st.lists(STEPS, min_size=30, max_size=50))
def test_both_sides_are_in_the_state_that_the_model_is_in(
    script: list[tuple[Callable[..., Awaitable[None]], *tuple[object, ...]]],
) -> None:
    async def play() -> None:
        card, model = dual_card(KEYS, new_memory()), Model()
        await to_reset(card, model)
        for step, *arguments in script:
            await step(card, model, *arguments)

    trio.run(play)
