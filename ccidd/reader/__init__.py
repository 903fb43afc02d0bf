# SPDX-License-Identifier: Apache-2.0
"""The reader: its slots and how commands reach the card in them. It knows no socket."""
