# SPDX-License-Identifier: Apache-2.0
"""`ccidd-vscclient`: ccidd's cards behind the command line of libcacard's vscclient."""
