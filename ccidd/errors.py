# SPDX-License-Identifier: Apache-2.0
"""The one exception whose text is written for the person who runs ccidd."""


class UserError(Exception):
    """Something that the operator gave cannot be used.

    The text is one line: what is wrong, with which file, option or slot, and what to do.
    """
