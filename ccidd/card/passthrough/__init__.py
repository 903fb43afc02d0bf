# SPDX-License-Identifier: Apache-2.0
"""Cards in this host's own readers, over PC/SC; the only place that knows pyscard."""
