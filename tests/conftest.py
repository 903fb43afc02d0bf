# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests, and the search for secrets in what all tests leave behind."""

import pytest
from hypothesis import settings

import secret_plugin

# A machine that is busy is no failure: time is measured by ./dev bench, and by nothing else.
settings.register_profile("ccidd", deadline=None)
settings.load_profile("ccidd")


def pytest_configure(config: pytest.Config) -> None:
    # The guest tests have it too.
    if not config.pluginmanager.is_registered(secret_plugin):
        config.pluginmanager.register(secret_plugin)
