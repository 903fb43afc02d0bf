# SPDX-License-Identifier: Apache-2.0
from ccidd.service.control.commands import REGISTRY
from ccidd.service.ctl.cli import make_parser
from parsers import commands_of

FOR_PROGRAMS = {
    "answer-request",  # ccidctl agent
    "qmp_capabilities",  # every connection
    "query-qmp-schema",
    "query-schema",
    "query-version",  # query-status has it
}


def test_people_can_do_what_programs_can() -> None:
    parsers = commands_of(make_parser()).values()
    executed = {parser.get_default("execute") for parser in parsers} - {None}
    assert executed == REGISTRY.commands.keys() - FOR_PROGRAMS


def test_each_command_says_what_it_does() -> None:
    for name, parser in commands_of(make_parser()).items():
        assert parser.description, name
        for action in parser._actions:
            assert action.help or action.metavar == "COMMAND", f"{name} {action.dest}"
