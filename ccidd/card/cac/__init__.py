# SPDX-License-Identifier: Apache-2.0
"""The applets of a CAC, the Common Access Card (GSC-IS 2.1, NISTIR 6887)."""
