# SPDX-License-Identifier: Apache-2.0
"""Fuzzes one target with atheris, until libFuzzer's options end it or an input fails.

usage: python -m fuzzing.campaign TARGET [DIRECTORY | FILE | -OPTION=VALUE]...

See https://llvm.org/docs/LibFuzzer.html, "Options". The first directory gets what is new.
"""

import sys

import atheris


def main() -> None:
    """Runs it; does not return."""
    _, target, *arguments = sys.argv
    with atheris.instrument_imports(include=["ccid_protocol", "ccidd"]):
        from fuzzing.corpus import load  # noqa: PLC0415 (what it imports is instrumented)

        run = load(target)
    atheris.Setup([target, *arguments], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
