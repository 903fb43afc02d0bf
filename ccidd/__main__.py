# SPDX-License-Identifier: Apache-2.0
"""`python -m ccidd` is `ccidd`."""

from ccidd.service.cli import main

main()
