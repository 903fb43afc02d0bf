# SPDX-License-Identifier: Apache-2.0
"""The PIV card application (NIST SP 800-73-4)."""
