# SPDX-License-Identifier: Apache-2.0
"""The PIV card application administration key: a symmetric key that encrypts single blocks.

Source: NIST SP 800-78-4, table 6-2 (algorithm identifiers; all in ECB mode).
"""

import enum
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, algorithms, modes


class ManagementAlgorithm(enum.IntEnum):
    """The algorithms that the key can have, by their identifiers."""

    TDES = 0x03
    AES_128 = 0x08
    AES_192 = 0x0A
    AES_256 = 0x0C

    @classmethod
    def of(cls, identifier: int) -> Self | None:
        """Gives the algorithm of an identifier (Triple DES has two), None for any other."""
        try:
            return cls(identifier or cls.TDES)
        except ValueError:
            return None

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return {self.TDES: 24, self.AES_128: 16, self.AES_192: 24, self.AES_256: 32}[self]

    @property
    def block_size(self) -> int:
        """Bytes of a block."""
        return 8 if self is self.TDES else 16


@dataclass(frozen=True, slots=True)
class ManagementKey:
    """The key with its algorithm.

    Attributes:
        algorithm: the algorithm.
        key: the key itself, a secret.

    Raises:
        ValueError: The key has the wrong size for the algorithm.
    """

    algorithm: ManagementAlgorithm
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != self.algorithm.key_size:
            raise ValueError(f"a key of {len(self.key)} bytes for {self.algorithm.name}")

    @classmethod
    def generate(cls, algorithm: ManagementAlgorithm = ManagementAlgorithm.AES_192) -> Self:
        """Makes a random key."""
        return cls(algorithm, secrets.token_bytes(algorithm.key_size))

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Reads what `encode` gives.

        Raises:
            ValueError: It is something else.
        """
        return cls(ManagementAlgorithm(value[0]), value[1:])

    def encode(self) -> bytes:
        """Gives the key as it is stored: the algorithm identifier, then the key."""
        return bytes([self.algorithm]) + self.key

    def encrypt(self, block: bytes) -> bytes:
        """Encrypts one block."""
        encryptor = self._cipher().encryptor()
        return encryptor.update(block) + encryptor.finalize()

    def decrypt(self, block: bytes) -> bytes:
        """Decrypts one block."""
        decryptor = self._cipher().decryptor()
        return decryptor.update(block) + decryptor.finalize()

    def _cipher(self) -> Cipher[modes.ECB]:
        cipher: BlockCipherAlgorithm
        if self.algorithm is ManagementAlgorithm.TDES:
            cipher = TripleDES(self.key)
        else:
            cipher = algorithms.AES(self.key)
        # Single random blocks are encrypted, as the standard says; nothing is chained.
        return Cipher(cipher, modes.ECB())  # noqa: S305


DEFAULT_MANAGEMENT_KEY: Final = ManagementKey(
    ManagementAlgorithm.TDES, bytes.fromhex("0102030405060708" * 3)
)
"""The key that cards with the extensions have after a reset.

All provisioning tools know it, and the older ones know no other algorithm.
"""
