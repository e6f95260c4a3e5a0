"""Prints the exceptions of a Space once: folded (tracebacks.py), and with a mark at which the host prints a sentence.

The host gets the facts of a known failure (failures.py) in a frame, and prints the sentence where it reads the mark, so
that it follows the traceback. A GPU worker sends no frames: its facts travel at the end of the text that spaces prints.
"""
from __future__ import annotations

import _thread
import contextlib
import functools
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from . import failures, tracebacks

if TYPE_CHECKING:
    from types import TracebackType

    from .state import State

MARK = "\x1espacehost:"  # begins a line of output that the host replaces (worker/failures.go)
SEPARATOR = "\x1e"  # between the text and the facts of a failure in a worker
ABORTED = "GPU task aborted"  # spaces 0.51.3 and 0.52, zero/wrappers.py
MAX_FAILURES = 1000  # reported to the host by one process


class Printer:
    """Prints exceptions. It is made at the start of the process; its methods may be called by any thread."""

    def __init__(self, state: State) -> None:
        self.state, self.root, self.count = state, os.path.realpath(os.getcwd()), 0
        self.main = _thread.get_ident()  # the thread that runs app.py

    # Installation

    def install(self) -> None:
        """Takes the place of sys.excepthook for the exceptions that end the process."""
        original = sys.excepthook

        def excepthook(kind: type[BaseException], error: BaseException, entry: TracebackType | None) -> None:
            if isinstance(error, KeyboardInterrupt) or not self.show(error, sys.stderr):
                original(kind, error, entry)

        sys.excepthook = sys.__excepthook__ = excepthook  # both: apps compare them, and call the second one

    def patch(self, module: Any) -> None:
        """Replaces traceback.print_exc in a module of Gradio."""
        if hasattr(module, "traceback"):
            module.traceback = tracebacks.Traceback(module.traceback, self.print_exc)

    def patch_worker(self, module: Any) -> None:
        """Replaces the text of exceptions in spaces.zero.wrappers: it is made in a worker and printed by the Space's process."""
        original = getattr(module, "exception_result", None)
        if original is None:
            return

        @functools.wraps(original)
        def exception_result(error: Exception) -> Any:
            result = original(error)
            if hasattr(result, "traceback"):
                with contextlib.suppress(Exception):
                    result.traceback = self.worker_text(error)
            return result

        module.exception_result, module.print = exception_result, self.print_worker_text
        if hasattr(module, "Process"):
            module.Process = self._printing(module.Process)

    def _printing(self, process: Any) -> Any:
        """Returns the class of workers. multiprocessing would print what ends a worker with all frames."""

        @functools.wraps(process)
        def start(*args: Any, **options: Any) -> Any:
            target = options.get("target")

            def run(*given: Any) -> None:
                try:
                    target(*given)  # type: ignore[misc]
                except Exception as error:
                    if not self.show(error, sys.stderr):
                        raise
                    sys.exit(1)

            return process(*args, **({**options, "target": run} if target is not None else options))

        return start

    def patch_errors(self, module: Any) -> None:
        """Names what ended a worker where spaces.zero.gradio makes the gr.Error about it. Releases without Gradio support have none."""
        original = getattr(module, "error", None)
        if original is None:
            return

        @functools.wraps(original)
        def error(title: str, message: str, *args: Any, **options: Any) -> Any:
            if message == ABORTED:
                with contextlib.suppress(Exception):
                    facts = failures.lost_worker(self.root, sys._getframe(1))
                    self._write("", facts, sys.stderr, self._current_event())
            return original(title, message, *args, **options)

        module.error = error

    def patch_server_log(self) -> None:
        """Folds the tracebacks that uvicorn logs for routes of the app. A formatter of logging uses exc_text if it is set."""
        import logging

        def fold(record: Any) -> bool:
            if record.exc_info and isinstance(record.exc_info, tuple) and not record.exc_text:
                with contextlib.suppress(Exception):
                    record.exc_text = tracebacks.text_of(record.exc_info[1]).rstrip("\n")
            return True

        log = logging.getLogger("uvicorn.error")
        if not any(getattr(one, "__module__", "") == __name__ for one in log.filters):
            log.addFilter(fold)

    # Printing

    def print(self, error: BaseException) -> None:
        """Prints an exception outside of its handler."""
        if not self.show(error, sys.stderr):
            import traceback

            traceback.print_exception(error)

    def print_exc(self) -> None:
        """Replaces traceback.print_exc in Gradio, which calls it in the handler of a failed event."""
        error = sys.exc_info()[1]
        if error is None or self._is_printed_by_spaces(error):
            return
        if not self.show(error, sys.stderr, self._running()):
            import traceback

            traceback.print_exc()
        with contextlib.suppress(Exception):
            if (worker := failures.unused_worker(error)) is not None:
                worker.kill()

    def show(self, error: BaseException, stream: Any, events: list[str] | None = None) -> bool:
        """Prints an exception and reports a known failure. Returns False, and has printed nothing, if that fails itself."""
        try:
            text, facts = tracebacks.text_of(error), failures.recognize(self.root, error)
        except Exception:
            return False
        self._write(text, facts, stream, events or [])
        return True

    def report_stack(self) -> None:
        """Prints where the main thread is: the app has not launched in time. The thread of the channel calls it."""
        with contextlib.suppress(Exception):
            text, facts = tracebacks.stack_of(sys._current_frames()[self.main]), failures.unlaunched(self.root, sys._current_frames()[self.main])
            self._write(text, facts, sys.stderr, [])

    def worker_text(self, error: BaseException) -> str:
        """Returns what spaces sends from a worker for an exception: the folded text, and the facts of a known failure."""
        text, facts = tracebacks.text_of(error).replace(SEPARATOR, ""), failures.recognize(self.root, error)
        return text + SEPARATOR + json.dumps(facts) if facts else text

    def print_worker_text(self, *values: Any, **options: Any) -> None:
        """Replaces print in spaces.zero.wrappers, which prints the text of worker_text in the Space's process."""
        text, found, facts = values[0].partition(SEPARATOR) if len(values) == 1 and isinstance(values[0], str) else ("", "", "")
        if not found:
            print(*values, **options)
            return
        self._write(text, json.loads(facts), sys.stdout, self._current_event())

    def _write(self, text: str, facts: dict[str, Any], stream: Any, events: list[str]) -> None:
        mark = ""
        if facts and not self.state.forked and self.count < MAX_FAILURES:
            self.count += 1
            self.state.send({"op": "failure", "number": self.count, "events": events, **facts})
            mark = f"{MARK}{self.count}\n"
        if stream is None:  # an app without a standard error stream
            return
        if text:
            stream.write(text if text.endswith("\n") else text + "\n")
            stream.flush()
        if mark:
            _write_mark(mark, stream)

    def _running(self) -> list[str]:
        """Returns the events of the current asyncio task."""
        import asyncio

        try:
            task = asyncio.current_task()
        except RuntimeError:
            return []
        return [event for adapter in self.state.adapters for event, its in adapter.tasks.items() if its is task]

    def _current_event(self) -> list[str]:
        """Returns the event of the current thread, as spaces finds it (spaces 0.51.3, zero/gradio.py, get_event)."""
        context = getattr(sys.modules.get("gradio.context"), "LocalContext", None)
        event = context.event_id.get(None) if context is not None else None
        return [event] if any(event in adapter.tasks for adapter in self.state.adapters) else []

    @staticmethod
    def _is_printed_by_spaces(error: BaseException) -> bool:
        """Reports whether spaces has printed the traceback already. Gradio 4 would print that of its gr.Error too."""
        entry = error.__traceback__
        while entry is not None and entry.tb_next is not None:
            entry = entry.tb_next
        return (
            entry is not None
            and entry.tb_frame.f_code.co_filename.endswith(os.path.join("spaces", "zero", "wrappers.py"))
            and type(error).__module__.partition(".")[0] in ("gradio", "spaces")
            and not getattr(error, "print_exception", False)
        )


def _write_mark(mark: str, stream: Any) -> None:
    """Writes the mark to the pipe that the host reads, even if the app has replaced the stream by one of its own."""
    own = sys.__stdout__ if stream is sys.stdout else sys.__stderr__
    try:
        if own is not None:
            own.write(mark)
            own.flush()
    except (OSError, ValueError):  # closed
        pass
