# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

from ccidd.service.sandbox.surroundings import Surroundings

STATE = Path("/var/lib/ccidd")


def test_python_is_where_it_says() -> None:
    python = Surroundings.here(STATE, None, {}).python
    assert Path(sys.prefix) in python
    assert Path(sys.executable).resolve() in python
    assert all(path.is_absolute() for path in python)


def test_the_tokens_of_softhsm_are_where_its_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "softhsm2.conf"
    file.write_text(f"log.level = ERROR\ndirectories.tokendir = {tmp_path}/tokens\n")
    around = Surroundings.here(STATE, None, {"SOFTHSM2_CONF": str(file)})
    assert file in around.module_files
    assert around.tokens == tmp_path / "tokens"


def test_softhsm_may_be_configured_by_its_user(tmp_path: Path) -> None:
    file = tmp_path / ".config/softhsm2/softhsm2.conf"
    file.parent.mkdir(parents=True)
    file.write_text("directories.tokendir=/srv/tokens")
    around = Surroundings.here(STATE, None, {"HOME": str(tmp_path)})
    assert around.tokens == Path("/srv/tokens")


def test_without_a_home_there_is_nothing_in_it() -> None:
    around = Surroundings.here(STATE, None, {})
    assert around.home is None
    assert around.desktop_files == around.desktop_stores == ()
    assert not any("home" in path.parts for path in around.module_files)


def test_the_environment_says_where_things_are() -> None:
    environ = {
        "HOME": "/home/alice",
        "XDG_CACHE_HOME": "/srv/cache",
        "XDG_CONFIG_HOME": "relative",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "XAUTHORITY": "/run/xauth",
        "CREDENTIALS_DIRECTORY": "/run/credentials/ccidd.service",
        "LOGS_DIRECTORY": "/srv/log/ccidd:/srv/log/other",
        "RUNTIME_DIRECTORY": "/run/ccidd/alice",
        "TPM2_PKCS11_STORE": "/srv/tpm2",
        "NOTIFY_SOCKET": "@notify",
    }
    around = Surroundings.here(STATE, Path("/etc/ccidd/ccidd.toml"), environ)
    assert around.file == Path("/etc/ccidd/ccidd.toml")
    assert around.credentials == Path("/run/credentials/ccidd.service")
    assert around.logs[1:] == (Path("/srv/log/ccidd"), Path("/srv/log/other"))
    assert around.runtime[1:] == (Path("/run/user/1000/ccidd"), Path("/run/ccidd/alice"))
    assert Path("/srv/cache/opensc") in around.module_stores
    assert Path("/srv/tpm2") in around.module_stores
    assert Path("/home/alice/.config/opensc") in around.module_files
    assert Path("/run/xauth") in around.desktop_files
    assert around.desktop_stores == (Path("/run/user/1000"),)
    assert around.abstract_sockets


def test_sockets_of_the_service_manager_are_files_as_a_rule() -> None:
    assert not Surroundings.here(STATE, None, {"NOTIFY_SOCKET": "/run/notify"}).abstract_sockets
