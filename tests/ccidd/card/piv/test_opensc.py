# SPDX-License-Identifier: Apache-2.0
"""This machine's OpenSC uses a card that is filled as test cards are, over a serial line."""

from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ccid_protocol import tlv
from ccidd.card.piv.card import piv_card
from ccidd.card.piv.records import object_name
from ccidd.card.piv.references import AID, KeyReference, ObjectTag
from ccidd.keys.key import KeyAlgorithm
from ccidd.reader.slot import Slot
from credentials import credential
from pcscd import pcscd, serving
from piv import GLOBAL_PIN, new_memory

FACIAL_IMAGE = tlv.encode(0xBC, bytes(i % 251 for i in range(12_500))) + b"\xfe\0"
GLOBAL_PIN_FIRST = tlv.encode(
    ObjectTag.DISCOVERY, tlv.encode(0x4F, AID), tlv.encode(0x5F2F, b"\x60\x20")
)
KEYS = {
    KeyReference.AUTHENTICATION: credential(KeyAlgorithm.RSA_2048),
    KeyReference.SIGNATURE: credential(KeyAlgorithm.P_256),
}
MESSAGE = b"to be signed"


async def test_the_global_pin_opens_a_card_on_which_it_is_the_primary(tmp_path: Path) -> None:
    memory = new_memory()
    await memory.store(
        {
            object_name(ObjectTag.DISCOVERY): GLOBAL_PIN_FIRST,
            object_name(ObjectTag.FACIAL_IMAGE): FACIAL_IMAGE,
        }
    )
    link, image = tmp_path / "reader", tmp_path / "image"
    data, signature = tmp_path / "data", tmp_path / "signature"
    data.write_bytes(MESSAGE)
    login = ("--login", f"--pin={GLOBAL_PIN.decode()}")
    async with serving(link, [Slot(piv_card(KEYS, memory))]), pcscd(link, "GemPCTwin") as host:
        await host.run(
            *("pkcs11-tool", *login, "--read-object", "--type=data"),
            *("--application-label=Cardholder Facial Image", f"--output-file={image}"),
        )
        # A key that wants the PIN each time.
        await host.run(
            *("pkcs11-tool", *login, "--sign", "--id=02", "--mechanism=ECDSA-SHA256"),
            *("--signature-format=openssl", f"--input-file={data}", f"--output-file={signature}"),
        )
    assert image.read_bytes() == tlv.encode(0x53, FACIAL_IMAGE)
    public_key = KEYS[KeyReference.SIGNATURE].key.public_key
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(signature.read_bytes(), MESSAGE, ec.ECDSA(hashes.SHA256()))
