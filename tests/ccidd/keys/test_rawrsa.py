# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from ccidd.errors import UserError
from ccidd.keys import rawrsa
from ccidd.keys.key import KeyAlgorithm
from ccidd.keys.rawrsa import RawRsaKey
from credentials import private_key

ALGORITHMS = (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096)


def rsa_key(algorithm: KeyAlgorithm) -> rsa.RSAPrivateKey:
    key = private_key(algorithm, 0)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_is_the_inverse_of_the_public_operation(algorithm: KeyAlgorithm) -> None:
    key = rsa_key(algorithm)
    numbers, size = key.public_key().public_numbers(), key.key_size // 8
    raw = RawRsaKey(key)
    for number in (0, 1, 2, numbers.n - 1, 0xC0FFEE):
        result = raw.transform(number.to_bytes(size))
        assert len(result) == size
        assert pow(int.from_bytes(result), numbers.e, numbers.n) == number


def test_many_threads_use_one_key_at_once() -> None:
    key = rsa_key(KeyAlgorithm.RSA_2048)
    numbers = key.public_key().public_numbers()
    raw = RawRsaKey(key)
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(raw.transform, [number.to_bytes(256) for number in range(64)])
        for number, result in enumerate(results):
            assert pow(int.from_bytes(result), numbers.e, numbers.n) == number


def test_what_is_no_block_of_the_key_s_is_refused() -> None:
    key = rsa_key(KeyAlgorithm.RSA_2048)
    raw = RawRsaKey(key)
    modulus = key.public_key().public_numbers().n.to_bytes(256)
    for block in (b"", bytes(255), bytes(257), modulus, b"\xff" * 256):
        with pytest.raises(ArithmeticError):
            raw.transform(block)
    assert raw.transform(bytes(256)) == bytes(256)


def test_a_host_without_openssl_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rawrsa._library.cache_clear()
    monkeypatch.setattr(rawrsa, "_LIBRARY", "libcrypto.so.0")
    with pytest.raises(UserError, match=r"libcrypto.so.0.*install libssl3"):
        RawRsaKey(rsa_key(KeyAlgorithm.RSA_2048))
