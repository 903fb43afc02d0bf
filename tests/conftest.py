# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests."""

from hypothesis import settings

# A machine that is busy is no failure: time is measured by ./dev bench, and by nothing else.
settings.register_profile("ccidd", deadline=None)
settings.load_profile("ccidd")
