# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from ccidd.errors import UserError
from ccidd.service.configfile import load_configuration
from ccidd.service.control.options import (
    CONTROL_OPTIONS,
    ControlOptions,
    parse_control,
    take_control_fds,
)
from ccidd.service.control.roles import DEFAULT, Role
from programs import run_ccidd

READER = '[readers.a]\nsocket-path = "x"\n'


def from_file(directory: Path, text: str) -> tuple[ControlOptions, ...]:
    file = directory / "ccidd.toml"
    file.write_text(f"{text}\n{READER}")
    return load_configuration(file, {}).control


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("/a", ControlOptions(Path("/a"), roles=DEFAULT)),
        ("a,,b,role=observe", ControlOptions(Path("a,b"), roles=Role.OBSERVE)),
        ("/a,role=operate", ControlOptions(Path("/a"), roles=Role.OPERATE | Role.OBSERVE)),
        ("/a,role=agent", ControlOptions(Path("/a"), roles=Role.AGENT)),
        ("/a,role=agent+observe", ControlOptions(Path("/a"), roles=Role.AGENT | Role.OBSERVE)),
        ("/a,mode=0660,group=0", ControlOptions(Path("/a"), mode=0o660, group="0")),
    ],
)
def test_an_option_says_where_and_for_whom(
    text: str, options: ControlOptions, tmp_path: Path
) -> None:
    assert parse_control(text) == options
    assert from_file(tmp_path, f'control = ["{text}"]') == (options,)


def test_a_file_has_strings_and_tables(tmp_path: Path) -> None:
    text = 'control = ["/a,role=agent", {path = "/b,c", role = "observe"}, {path = "/d"}]'
    assert from_file(tmp_path, text) == (
        ControlOptions(Path("/a"), roles=Role.AGENT),
        ControlOptions(Path("/b,c"), roles=Role.OBSERVE),
        ControlOptions(Path("/d")),
    )
    assert from_file(tmp_path, "") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--control=: the path of the socket comes first"),
        ("role=agent", "--control=role=agent: the path of the socket comes first"),
        ("/a,role=obsrve", "--control=/a: role: there is no role 'obsrve'; did you mean observe?"),
        (
            "/a,role=root",
            "--control=/a: role: there is no role 'root'; there are observe, operate, agent",
        ),
        ("/a,role=agent,role=agent", "--control=/a: role: this is given twice"),
        ("/a,role", "--control=/a: role: this needs a value: role=..."),
        ("/a,roel=agent", "--control=/a: there is no option 'roel'; did you mean role?"),
        ("/a,mode=rw", "--control=/a: mode: rw: this is no mode of a socket, such as 0660"),
        ("/a,group=nobody-of-us", "--control=/a: group: nobody-of-us: there is no such group"),
        ("/a,x=1", "--control=/a: there is no option 'x'; --control=help lists them"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_control(text)
    assert str(refused.value) == message


def test_a_wrong_option_ends_the_program_at_once() -> None:
    result = run_ccidd("--socket-path=x", "--control=/a", "--control=/b,role=root")
    assert result.returncode == 2
    assert "--control=/b: role: there is no role 'root'" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('control = "/a"', ": control: this is to be a list of strings or tables"),
        ("control = [3]", ": control[0]: this is to be a string that is not empty, or a table"),
        ('control = ["/a", "/b,x=1"]', ": control[1]: there is no option 'x'"),
        ("control = [{}]", ": control[0].path: this is to be there"),
        ('control = [{path = "/a", role = "x"}]', ": control[0].role: there is no role"),
        ('control = [{path = "/a", role = {}}]', ": control[0].role: this is to be a string"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        from_file(tmp_path, text)
    assert f"ccidd.toml{message}" in str(refused.value)


def test_systemds_descriptors_are_told_apart_by_their_names() -> None:
    passed = [("control", 3), ("alice", 4), ("control-agent", 5), ("control-room", 6)]
    sockets, others = take_control_fds(passed)
    assert sockets == [ControlOptions(fd=3), ControlOptions(fd=5, roles=Role.AGENT)]
    assert others == [("alice", 4), ("control-room", 6)]


def test_help_explains_all_options_and_roles() -> None:
    result = run_ccidd("--control=help")
    assert result.returncode == 0
    for word in (*CONTROL_OPTIONS, "observe ", "operate ", "agent "):
        assert f"  {word}" in result.stdout
