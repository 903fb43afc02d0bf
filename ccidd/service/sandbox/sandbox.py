# SPDX-License-Identifier: Apache-2.0
"""The sandbox as the service has it: made once, and then held against what else is asked for."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from ccidd.keys.cryptoki import Cryptoki
from ccidd.service.configuration import Configuration, ReaderConfiguration
from ccidd.service.options import CardOptions
from ccidd.service.sandbox.confine import NOT_CONFINED, Confinement, Mode, check_support, confine
from ccidd.service.sandbox.derivation import module_needs_of, needs_of
from ccidd.service.sandbox.needs import Access, Needs
from ccidd.service.sandbox.surroundings import Surroundings

_MODULE: Final = "ccidd.service.sandbox.module"


class Sandbox:
    """What keeps ccidd to what its configuration needs.

    Args:
        configuration: what is served at first.
        surroundings: what there is on this machine.

    Attributes:
        confinement: what is in force.

    Raises:
        UserError: What was asked for cannot be had.
    """

    def __init__(self, configuration: Configuration, surroundings: Surroundings) -> None:
        self._mode = Mode(configuration.sandbox or Mode.AUTO.value)
        check_support(self._mode)
        self.confinement: Confinement = NOT_CONFINED
        self._configuration = configuration
        self._surroundings = surroundings
        self._module_needs = Needs()
        self._lock = threading.Lock()
        self._let_modules(configuration)

    def enter(self) -> None:
        """Gives up for good what the configuration does not need.

        Called when all is open, and before there is any other thread.

        Raises:
            UserError: It does not work, and was to.
        """
        needs = needs_of(self._configuration, self._surroundings)
        self.confinement = confine(needs, self._mode)

    def check(self, reader: ReaderConfiguration) -> None:
        """Checks that a reader stays within, and readies its PKCS#11 modules.

        Raises:
            UserError: It does not.
        """
        for card in reader.cards:
            with card.where.naming():
                self.check_card(card)
        self._check(reader)

    def check_card(self, card: CardOptions) -> None:
        """Checks that a card stays within, and readies its PKCS#11 modules.

        Raises:
            UserError: It does not.
        """
        self._check(ReaderConfiguration(cards=(card,)))

    def check_new_file(self, file: Path) -> None:
        """Checks that a file that is to be made lies within.

        Raises:
            UserError: It does not.
        """
        self.confinement.check(Needs({file.absolute().parent: Access.CREATE}))

    def _check(self, reader: ReaderConfiguration) -> None:
        configuration = replace(self._configuration, readers=(reader,))
        self.confinement.check(needs_of(configuration, self._surroundings))
        self._let_modules(configuration)

    def _let_modules(self, configuration: Configuration) -> None:
        """Has the processes of modules confine themselves, from the next one on."""
        if self._mode is Mode.OFF:
            return
        needs = module_needs_of(configuration, self._surroundings)
        # Cards are opened in threads.
        with self._lock:
            self._module_needs |= needs
            Cryptoki.program = (sys.executable, "-P", "-m", _MODULE)
            Cryptoki.preamble = f"{self._module_needs.to_json()}\n".encode()
