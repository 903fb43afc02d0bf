# SPDX-License-Identifier: Apache-2.0
"""RSA on a whole block that somebody else has padded (RFC 8017, 5.1.2: RSADP).

`cryptography` offers RSA only with its own padding, so this asks the OpenSSL that Python's own
modules use: blinded, in constant time, with the Chinese remainder theorem and its result checked,
and without Python's interpreter lock.

Source: OpenSSL 3, EVP_PKEY_sign(3), EVP_PKEY_CTX_set_rsa_padding(3), d2i_PrivateKey(3).
"""

import ctypes
import weakref
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_void_p
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ccidd.errors import UserError

_LIBRARY: Final = "libcrypto.so.3"
_EVP_PKEY_RSA: Final = 6
_RSA_NO_PADDING: Final = 3


class RawRsaKey:
    """A private key, and nothing but the operation itself.

    Args:
        key: the key.

    Raises:
        UserError: There is no OpenSSL 3.
    """

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._size = (key.key_size + 7) // 8
        self._library = _library()
        der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        begin = c_char_p(der)
        self._key = c_void_p(
            self._library.d2i_PrivateKey(_EVP_PKEY_RSA, None, byref(begin), len(der))
        )
        assert self._key.value is not None, "OpenSSL reads what OpenSSL wrote"
        weakref.finalize(self, self._library.EVP_PKEY_free, self._key)

    def transform(self, block: bytes) -> bytes:
        """Does the private operation; it takes a while, and threads may do it at once.

        Args:
            block: as long as the modulus, big-endian, and smaller than it.

        Raises:
            ArithmeticError: It did not work out; a faulty result would give the key away.
        """
        library, context = self._library, c_void_p()
        result = ctypes.create_string_buffer(self._size)
        length = c_size_t(self._size)
        try:
            context = c_void_p(library.EVP_PKEY_CTX_new(self._key, None))
            if (
                context.value is None
                or library.EVP_PKEY_sign_init(context) != 1
                or library.EVP_PKEY_CTX_set_rsa_padding(context, _RSA_NO_PADDING) != 1
                or library.EVP_PKEY_sign(context, result, byref(length), block, len(block)) != 1
                or length.value != self._size
            ):
                library.ERR_clear_error()
                raise ArithmeticError("an RSA operation went wrong")
        finally:
            library.EVP_PKEY_CTX_free(context)
        return result.raw


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise UserError(f"RSA keys need OpenSSL 3 ({_LIBRARY}): install libssl3") from error
    for name, result, *arguments in (
        ("d2i_PrivateKey", c_void_p, c_int, c_void_p, POINTER(c_char_p), c_long),
        ("EVP_PKEY_free", None, c_void_p),
        ("EVP_PKEY_CTX_new", c_void_p, c_void_p, c_void_p),
        ("EVP_PKEY_CTX_free", None, c_void_p),
        ("EVP_PKEY_sign_init", c_int, c_void_p),
        ("EVP_PKEY_CTX_set_rsa_padding", c_int, c_void_p, c_int),
        ("EVP_PKEY_sign", c_int, c_void_p, c_char_p, POINTER(c_size_t), c_char_p, c_size_t),
        ("ERR_clear_error", None),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
