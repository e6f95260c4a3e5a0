"""Types of the JSON answers of `spacehost COMMAND --json`. Times are strings in UTC, such as 2026-11-30T14:15:27.634Z."""

from __future__ import annotations

from typing import Any, TypedDict


class Runs(TypedDict):
    """GPU calls in any 24 hours: used, reserved by waiting calls, and left of the tier's number."""

    used: int
    reserved: int
    limit: int
    granted: int
    remaining: int
    resetsAt: str | None
    enforced: bool


class _Balance(TypedDict):
    identity: str
    tier: str
    unlimited: bool
    baseSeconds: float
    chargedSeconds: float
    heldSeconds: float
    leftSeconds: float
    resetsAt: str | None
    creditSeconds: float
    creditHeldSeconds: float


class Balance(_Balance, total=False):
    """One account in the list of `spacehost quota`."""

    runs: Runs


class Charge(TypedDict, total=False):
    """One settled call of an account."""

    at: str
    lease: str
    space: str
    function: str
    via: str
    factor: int
    declaredSeconds: float
    usedSeconds: float
    chargedSeconds: float
    reason: str


class Refusal(TypedDict, total=False):
    """One refused call of an account."""

    at: str
    identity: str
    space: str
    function: str
    via: str
    requestedSeconds: float
    leftSeconds: float
    again: str | None
    text: str


class Account(Balance):
    """`spacehost quota ACCOUNT` and `spacehost explain ACCOUNT`. functions has the calls of each function that still fit."""

    grantedSeconds: float
    leftMinutes: float
    longestSeconds: float
    priority: int
    concurrency: int
    creditChargedSeconds: float
    now: str
    openedAt: str | None
    functions: list[dict[str, Any]]
    open: list[dict[str, Any]]
    charges: list[Charge]


class Explanation(Account):
    """`spacehost explain ACCOUNT`. calls has a verdict for each function."""

    refusals: list[Refusal]
    calls: list[dict[str, Any]]
    waiting: int


class _LedgerLine(TypedDict):
    id: int
    at: str
    identity: str
    kind: str
    factor: int
    declaredSeconds: float
    usedSeconds: float
    heldSeconds: float
    chargedSeconds: float
    returnedSeconds: float


class LedgerLine(_LedgerLine, total=False):
    """One line of `spacehost ledger ACCOUNT`. kind is hold, settle, grant, reset, credit ..."""

    lease: str
    space: str
    function: str
    via: str
    runs: int
    creditHeldSeconds: float
    creditChargedSeconds: float
    reason: str
    by: str


class OpenLease(TypedDict, total=False):
    """One call that waits for or holds a GPU."""

    lease: str
    state: str
    space: str
    identity: str
    size: str
    declaredSeconds: float
    usedSeconds: float
    worker: int
    admitted: str
    forecast: dict[str, Any]


class EndedLease(TypedDict):
    """One ended call. state is released, expired, revoked ..., and reason says why."""

    lease: str
    state: str
    reason: str
    space: str
    identity: str
    declaredSeconds: float
    chargedSeconds: float
    admitted: str
    ended: str


class Leases(TypedDict):
    """`spacehost lease`. now is the host's clock."""

    now: str
    open: list[OpenLease]
    ended: list[EndedLease]


class Clock(TypedDict):
    """`spacehost clock`: the host's time, and how far it is ahead of the true time."""

    now: str
    advancedSeconds: float


class _Gpu(TypedDict):
    uuid: str
    index: int
    name: str
    memoryTotal: int
    simulated: bool
    memoryUsed: int
    memoryFree: int
    processes: list[dict[str, Any]]
    slots: list[dict[str, Any]]


class Gpu(_Gpu, total=False):
    """One GPU of `spacehost gpu`. error is the reason why it is not lent."""

    error: str
    faults: list[str]
    drained: dict[str, Any]
