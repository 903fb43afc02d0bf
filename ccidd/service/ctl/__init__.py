# SPDX-License-Identifier: Apache-2.0
"""The program `ccidctl`: people's way to the control socket of a ccidd."""
