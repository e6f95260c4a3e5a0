"""The exception of this package."""

from __future__ import annotations

# Exit codes of `spacehost run`, and what failed (docs/cli.md).
CAUSES = {
    1: "the host failed",
    2: "the command line is wrong",
    3: "CONFIG_ERROR: README.md or the app file is wrong",
    4: "BUILD_ERROR: the environment could not be built",
    5: "RUNTIME_ERROR: the app ended before it answered",
}


class SpacehostError(RuntimeError):
    """A start, a command or a stop of spacehost failed.

    message is the reason, exit_code the exit code of spacehost or None, and log the last lines of spacehost and of the Space.
    str() has the message and the log.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, log: str = "") -> None:
        text = f"{message}\n\nLast output of spacehost and the Space:\n{log}" if log else message
        super().__init__(text)
        self.message = message
        self.exit_code = exit_code
        self.log = log
