# SPDX-License-Identifier: Apache-2.0
"""A virtual smart-card reader, with its cards, in a process of its own beside QEMU."""

__version__ = "0.1.0"
