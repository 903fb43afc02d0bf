# SPDX-License-Identifier: Apache-2.0
"""What the operator sees: command line, card options, stored state, supervision."""
