# SPDX-License-Identifier: Apache-2.0
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccidd.errors import UserError
from ccidd.keys.uri import Pkcs11Uri, Version, parse_uri

TEXT_ATTRIBUTES = (
    "token",
    "manufacturer",
    "serial",
    "model",
    "library-manufacturer",
    "library-description",
    "object",
    "slot-description",
    "slot-manufacturer",
)
QUERY_ATTRIBUTES = ("pin-source", "module-name", "module-path")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


# RFC 7512, 3: its examples, less their PINs.
@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("pkcs11:", Pkcs11Uri()),
        (
            "pkcs11:object=my-pubkey;type=public",
            Pkcs11Uri(object="my-pubkey", type="public"),
        ),
        (
            "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
            Pkcs11Uri(object="my-key", type="private", pin_source="file:/etc/token"),
        ),
        (
            (
                "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;"
                "model=1.0;object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial="
                "?pin-source=file:/etc/token_pin"
            ),
            Pkcs11Uri(
                token="The Software PKCS#11 Softtoken",
                manufacturer="Snake Oil, Inc.",
                model="1.0",
                object="my-certificate",
                type="cert",
                id=bytes.fromhex("69953E5CF4BDEC91"),
                serial="",
                pin_source="file:/etc/token_pin",
            ),
        ),
        (
            (
                "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-version=1.2;"
                "library-description=Soft%20Token%20Library"
            ),
            Pkcs11Uri(
                library_manufacturer="Snake Oil, Inc.",
                library_version=Version(1, 2),
                library_description="Soft Token Library",
            ),
        ),
        (
            (
                "pkcs11:slot-description=Sun%20Metaslot;slot-id=1;slot-manufacturer=a?"
                "module-path=/mnt/lib%26/p11.so&module-name=p11"
            ),
            Pkcs11Uri(
                slot_description="Sun Metaslot",
                slot_id=1,
                slot_manufacturer="a",
                module_path="/mnt/lib&/p11.so",
                module_name="p11",
            ),
        ),
        ("PKCS11:library-version=3", Pkcs11Uri(library_version=Version(3, 0))),
        ("pkcs11:object=a=b&c", Pkcs11Uri(object="a=b&c")),
    ],
)
def test_a_uri_is_read_as_the_rfc_says(uri: str, expected: Pkcs11Uri) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "begins with pkcs11:"),
        ("token=a", "begins with pkcs11:"),
        ("pkcs11:token", "without ="),
        ("pkcs11:token=a;", "without ="),
        ("pkcs11:token=a?", "nothing behind"),
        ("pkcs11:token=a;token=a", "token twice"),
        ("pkcs11:tokn=a", "'tokn'"),
        ("pkcs11:module-path=/lib.so", "other half"),
        ("pkcs11:?token=a", "other half"),
        ("pkcs11:token=a b", "written as %XX"),
        ("pkcs11:token=a/b", "written as %XX"),
        ("pkcs11:token=ä", "written as %XX"),
        ("pkcs11:token=%4", "written as %XX"),
        ("pkcs11:token=%ff", "UTF-8"),
        ("pkcs11:token=a%00", "NUL"),
        ("pkcs11:type=key", "type is none of"),
        ("pkcs11:slot-id=0x1", "no decimal number"),
        ("pkcs11:slot-id=", "no decimal number"),
        ("pkcs11:library-version=1.", "no version"),
        ("pkcs11:token=" + "a" * 5000, "more than 4096"),
    ],
)
def test_what_breaks_the_grammar_is_refused_by_name(uri: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_uri(uri)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("uri", ["pkcs11:?pin-value=1234", "pkcs11:token=a?pin-value=1234"])
def test_a_pin_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UserError, match="pin-source") as refused:
        parse_uri(uri)
    assert "1234" not in str(refused.value)


@given(
    path=st.dictionaries(st.sampled_from(TEXT_ATTRIBUTES), texts),
    query=st.dictionaries(st.sampled_from(QUERY_ATTRIBUTES), texts),
    identifier=st.none() | st.binary(max_size=20),
    slot=st.none() | st.integers(0, 2**64 - 1),
)
def test_what_is_encoded_comes_back(
    path: dict[str, str], query: dict[str, str], identifier: bytes | None, slot: int | None
) -> None:
    encoded = [f"{name}={quote(value, safe='')}" for name, value in path.items()]
    if identifier is not None:
        encoded.append(f"id={quote(identifier, safe='')}")
    if slot is not None:
        encoded.append(f"slot-id={slot}")
    uri = "pkcs11:" + ";".join(encoded)
    if query:
        uri += "?" + "&".join(f"{name}={quote(value, safe='/')}" for name, value in query.items())
    parsed = parse_uri(uri)
    for name, value in (path | query).items():
        assert getattr(parsed, name.replace("-", "_")) == value
    assert parsed.id == identifier
    assert parsed.slot_id == slot


@given(st.text() | st.text("pkcs1:token=id;?%&-42fF/", max_size=60).map("pkcs11:".__add__))
@example("pkcs11:id=%")
def test_only_a_user_error_comes_of_any_text(text: str) -> None:
    message = ""
    try:
        parse_uri(text)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
