# SPDX-License-Identifier: Apache-2.0
"""`ccidd check`: looks at all that serving would need, and tells what it finds.

What serving opens is opened by the same code, but nothing is served, made, written or locked, and
no token is logged in to, since a login may cost a try of its PIN. Each module has the checks of one
subject; `plan` says which there are, `running` runs them side by side, and `command` is the command
line.
"""
