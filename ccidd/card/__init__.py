# SPDX-License-Identifier: Apache-2.0
"""What sits in a slot: cards, and the applications on them. A card knows no reader."""
