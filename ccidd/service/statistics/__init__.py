# SPDX-License-Identifier: Apache-2.0
"""Statistics: how often things happen, and how long they take.

    histogram       durations, by how long they were
    statistics      what is counted, of each reader and slot
    openmetrics     the same as text for those who collect metrics
    metricsfile     that text in a file

Counting costs an APDU a few microseconds; nothing of what guests and cards say is kept.
"""

from ccidd.service.statistics.metricsfile import MetricsFile
from ccidd.service.statistics.statistics import Statistics

__all__ = ["MetricsFile", "Statistics"]
