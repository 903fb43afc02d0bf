# SPDX-License-Identifier: Apache-2.0
"""What is fed: each module has `run(data)`, which raises if what must hold does not."""
