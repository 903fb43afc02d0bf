# SPDX-License-Identifier: Apache-2.0
"""Hostile input for all that reads what comes from outside; docs/fuzzing.md tells how to run it.

targets       one module for each thing that is fed
script        bytes that are read as a series of choices and pieces
corpus        the inputs that are kept
mutation      new inputs out of those that are kept, without knowing the code
campaign      new inputs that find their way through the code (atheris)
"""
