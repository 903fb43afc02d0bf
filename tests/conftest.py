# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests, and the search for secrets in what all tests leave behind."""

import signal

import pytest
from hypothesis import settings

import secret_plugin

# A machine that is busy is no failure: time is measured by ./dev bench, and by nothing else.
settings.register_profile("ccidd", deadline=None)
settings.load_profile("ccidd")


def pytest_configure(config: pytest.Config) -> None:
    # Under nohup, and in the background of a script, these are ignored, and would be so by all
    # programs that are started here. Some tests are about them.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The guest tests have it too.
    if not config.pluginmanager.is_registered(secret_plugin):
        config.pluginmanager.register(secret_plugin)
