# SPDX-License-Identifier: Apache-2.0
"""`./dev bench`: what ccidd costs, beside baselines that are measured in the same run.

    figures      numbers beside their baselines, as a table and as a plot
    doors        the front doors, and a host at each that is as quick as Python can be
    service      a command from socket to socket, beside echo servers in trio and in C
    roundtrips   a command in a guest, beside a back end that only echoes
    signatures   signatures a second, over one and many slots, beside `openssl speed`
    start        the time until "ready", and memory

Each figure is a median, taken in turn with its baseline, so that a machine that gets slower does so
for both. Times of different machines, or of different runs, say nothing.
"""
