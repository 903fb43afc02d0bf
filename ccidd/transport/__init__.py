# SPDX-License-Identifier: Apache-2.0
"""Between a socket and the reader: listening, connecting, and one module a front door."""
