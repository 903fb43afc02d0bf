# SPDX-License-Identifier: Apache-2.0
"""The guard: stands before a card, and keeps a guest from harming it."""
