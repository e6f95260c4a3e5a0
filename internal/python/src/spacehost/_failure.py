"""What a failed test shows of its Space: the output during the test, calls that were ended, and calls that were refused."""

from __future__ import annotations

from collections.abc import Iterator

from spacehost._answers import EndedLease, LedgerLine
from spacehost._errors import SpacehostError
from spacehost._host import Host

MAX_LINES = 100  # of the output

# Why a call was ended, and the next step. Reasons are those of `spacehost lease`.
LIMITS = {
    "deadline": "the declared duration was exceeded; raise @spaces.GPU(duration=...) if the function needs longer",
}


class FailureReport:
    """Remembers where a test begins on its Host, and describes what has happened since."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._begin = time_key(host.leases(limit=1)["now"])
        self._size = host.log_size()

    def sections(self) -> Iterator[tuple[str, str]]:
        """The titles and texts of the sections of pytest's report."""
        limits = "\n".join(self._limits())
        if limits:
            yield "Limits that spacehost enforced during the test", limits
        lines = self._host.log(since=self._size).splitlines()
        if lines:
            left_out = [f"... {len(lines) - MAX_LINES} lines before ..."] if len(lines) > MAX_LINES else []
            yield "Output of the Space during the test", "\n".join(left_out + lines[-MAX_LINES:])

    def _limits(self) -> Iterator[str]:
        try:
            ended = [lease for lease in self._host.leases()["ended"] if time_key(lease["admitted"]) >= self._begin]
            for lease in reversed(ended):
                if lease["state"] != "released":
                    yield self._ended(lease)
            yield from self._refused({lease["identity"] for lease in ended} | {"local"})
        except SpacehostError as error:  # the host has ended: its output shows why
            yield f"the leases of the test are unknown: {error.message}"

    def _ended(self, lease: EndedLease) -> str:
        lines = [line for line in self._host.ledger(lease["identity"]) if line.get("lease") == lease["lease"]]
        used = next((line["usedSeconds"] for line in lines if line["kind"] == "settle"), lease["chargedSeconds"])
        why = LIMITS.get(lease["reason"], lease["reason"])
        return (
            f"{function_of(lines, lease['space'])}: lease {lease['lease']} {lease['state']} after {used:g} s of {lease['declaredSeconds']:g} s "
            f"declared: {why}"
        )

    def _refused(self, accounts: set[str]) -> Iterator[str]:
        for account in sorted(accounts):
            for refusal in reversed(self._host.explain(account)["refusals"]):
                if time_key(refusal["at"]) >= self._begin:
                    name = f"{refusal['space']}.{refusal.get('function', '')}".rstrip(".")
                    yield f"{name}: call of {account} refused: {refusal['text']}"


def function_of(lines: list[LedgerLine], space: str) -> str:
    """Names the function of a lease by its Space and its ledger lines: space.generate."""
    names = [line["function"] for line in lines if line.get("function")]
    return f"{space}.{names[0]}" if names else space


def time_key(text: str) -> str:
    """A time of the host, such as 2026-11-30T14:15:27.63Z, with a fraction of fixed length, so that times compare as text."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
