# SPDX-License-Identifier: Apache-2.0
"""The sandbox: ccidd gives up what it does not need, for good.

    needs         what a process needs
    surroundings  what of this machine it needs: Python's files, PKCS#11 modules' stores
    derivation    what it needs for a configuration
    landlock      the files and ports that can be reached
    seccomp       the system calls that can be made
    privileges    new privileges, capabilities
    parts         all of these, in their order
    confine       what came of them, said loudly
    module        the process of a PKCS#11 module, which has less than ccidd
    sandbox       what the service has of it all

`ccidd.dumps` keeps the memory from others. docs/security.md tells what it is all good for.
"""
