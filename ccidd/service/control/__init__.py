# SPDX-License-Identifier: Apache-2.0
"""The control socket: ccidd seen and told what to do while it runs, in the form of QEMU's QMP."""
