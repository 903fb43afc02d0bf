# SPDX-License-Identifier: Apache-2.0
"""The PKCS#11 modules that p11-kit is configured with."""

from pathlib import Path

import pytest

from ccidd.keys.modules import configured_modules
from tokens import SOFTHSM


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    for name in ("system", "administrator"):
        (tmp_path / name).mkdir()
    return [tmp_path / "system", tmp_path / "administrator"]


def configure(directory: Path, name: str, *lines: str) -> None:
    (directory / f"{name}.module").write_text("\n".join(lines) + "\n")


def test_this_machine_s_configuration_is_read() -> None:
    found = configured_modules()
    assert Path(SOFTHSM).resolve() in [Path(module).resolve() for module in found]
    assert not [module for module in found if "trust" in module or "proxy" in module]


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["# a comment", f"module: {SOFTHSM}", "critical: no"], 1),
        ([f"  module :  {SOFTHSM}  "], 1),
        ([f"module: {SOFTHSM}", "trust-policy: yes"], 0),
        ([f"module: {SOFTHSM}", "disable-in: other, ccidd"], 0),
        ([f"module: {SOFTHSM}", "disable-in: other"], 1),
        ([f"module: {SOFTHSM}", "enable-in: p11-kit-proxy"], 0),
        ([f"module: {SOFTHSM}", "enable-in: p11-kit-proxy, ccidd"], 1),
        ([f"module: {SOFTHSM}", "remote: |program"], 0),
        (["module: /nowhere/module.so"], 0),
        (["module: nothing-like-it.so"], 0),
        (["module: p11-kit-client.so"], 0),
        (["nothing"], 0),
        ([], 0),
    ],
)
def test_modules_that_may_have_keys_are_used(
    directories: list[Path], lines: list[str], count: int
) -> None:
    configure(directories[0], "one", *lines)
    assert configured_modules(directories) == [SOFTHSM] * count


def test_a_module_is_looked_for_where_modules_are(directories: list[Path]) -> None:
    configure(directories[0], "opensc", "module: opensc-pkcs11.so")
    (found,) = configured_modules(directories)
    assert found.startswith("/usr/lib")
    assert found.endswith("/opensc-pkcs11.so")


def test_the_administrator_has_the_last_word(directories: list[Path]) -> None:
    configure(directories[0], "one", f"module: {SOFTHSM}")
    configure(directories[1], "one", "enable-in: nobody")
    assert configured_modules(directories) == []


def test_a_directory_that_cannot_be_looked_into_counts_as_empty(tmp_path: Path) -> None:
    # As one may not be permitted to; root may look everywhere, but not behind such a name.
    directory = tmp_path / ("x" * 300)
    with pytest.raises(OSError, match="File name too long"):
        list(directory.glob("*.module"))
    assert configured_modules([directory]) == []


def test_modules_have_an_order_and_are_there_once(directories: list[Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first.so", tmp_path / "second.so"
    first.touch()
    second.touch()
    (tmp_path / "link.so").symlink_to(second)
    configure(directories[0], "a", f"module: {second}")
    configure(directories[0], "b", f"module: {first}", "priority: 1")
    configure(directories[1], "c", f"module: {tmp_path}/link.so")
    found = [str(Path(module).resolve()) for module in configured_modules(directories)]
    assert found == [str(first), str(second)]
