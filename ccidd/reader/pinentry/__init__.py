# SPDX-License-Identifier: Apache-2.0
"""PIN entry at the reader: where a PIN comes from that the guest never sees."""
