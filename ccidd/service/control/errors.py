# SPDX-License-Identifier: Apache-2.0
"""Why a command is not executed."""

from ccid_protocol.qmp import ErrorClass


class CommandError(Exception):
    """A command cannot be executed.

    Args:
        description: why not, for people. It holds no value of an argument that may be a secret.
        error_class: for programs.
    """

    def __init__(
        self, description: str, error_class: ErrorClass = ErrorClass.GENERIC_ERROR
    ) -> None:
        super().__init__(description)
        self.error_class = error_class


def not_found(description: str) -> CommandError:
    """Makes the error for a reader, slot, card or request that there is not."""
    return CommandError(description, ErrorClass.DEVICE_NOT_FOUND)
