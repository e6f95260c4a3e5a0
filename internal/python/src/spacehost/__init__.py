"""Runs Hugging Face Gradio Spaces under ZeroGPU's rules, from Python.

Host starts the spacehost binary of this package on one or several Spaces, and stops it. The pytest plugin
(spacehost.pytest_plugin) has fixtures for tests.
"""

from spacehost._answers import Account, Balance, Charge, Clock, EndedLease, Explanation, Gpu, Leases, LedgerLine, OpenLease, Refusal, Runs
from spacehost._binary import find_binary
from spacehost._errors import SpacehostError
from spacehost._host import Host, Space

__all__ = [
    "Account",
    "Balance",
    "Charge",
    "Clock",
    "EndedLease",
    "Explanation",
    "Gpu",
    "Host",
    "Leases",
    "LedgerLine",
    "OpenLease",
    "Refusal",
    "Runs",
    "Space",
    "SpacehostError",
    "find_binary",
]
