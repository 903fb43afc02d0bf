# SPDX-License-Identifier: Apache-2.0
"""Where private keys live, one module a kind of store."""
