"""Prints tracebacks without the frames of packages that the Space's author did not write.

A line such as `... 31 lines of gradio, anyio and spaces` replaces these frames. With SPACEHOST_TRACEBACK=full, a Variable
of the Space, tracebacks are printed as Python formats them. docs/design/0027-tracebacks.md gives the reasons.
"""
from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDED = (
    "gradio", "gradio_client", "anyio", "starlette", "fastapi", "uvicorn", "spaces",
    "huggingface_hub", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3", "pydantic",
)
# Modules of Python that these packages run an app's function with. They are folded where they continue a folded part.
BETWEEN = ("asyncio", "concurrent", "contextlib.py", "contextvars.py", "multiprocessing", "runpy.py", "threading.py")

FROZEN = "frozen"  # modules inside the interpreter, without source lines: left out

RUNNER = os.path.dirname(os.path.abspath(__file__)) + os.sep
LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
FULL = "SPACEHOST_TRACEBACK"  # a Variable; "full": no frame is folded

MAX_LINES = 40  # of one uninterrupted part: torch._dynamo has hundreds, a recursion through several functions thousands
KEPT = 12  # lines at the start and at the end of a longer part


def package_of(file: str) -> str:
    """Returns the installed package that contains a file, such as "gradio", or "" for the app and for Python itself."""
    for folder in ("site-packages", "dist-packages"):
        _, found, inside = file.rpartition(f"{os.sep}{folder}{os.sep}")
        if found:
            return inside.partition(os.sep)[0].removesuffix(".py")
    return ""


def owner(file: str) -> str:
    """Returns the package of a frame that is folded, or "". "Python" stands for a frame that is folded after another one, and
    FROZEN for one that is left out."""
    if file.startswith(RUNNER):
        return "spacehost"
    if file.startswith("<frozen "):
        return FROZEN
    package = package_of(file)
    if package in FOLDED:
        return package
    if not package and file.startswith(LIBRARY) and file[len(LIBRARY) :].partition(os.sep)[0] in BETWEEN:
        return "Python"
    return ""


def text_of(error: BaseException, full: bool = False) -> str:
    """Returns a traceback as it is printed; full: with every frame."""
    import traceback  # here: not before the app's first line

    made = traceback.TracebackException.from_exception(error)
    if not full and os.environ.get(FULL) != "full":
        for part in _chain(made):
            part.stack = _folded_summary()(part.stack)
    return "".join(made.format())


def stack_of(frame: Any) -> str:
    """Returns the stack of a thread, folded like a traceback."""
    import traceback

    stack = traceback.StackSummary.extract(traceback.walk_stack(frame))
    stack.reverse()
    return "The main thread is here:\n" + "".join(_folded_summary()(stack).format())


def _chain(made: Any, depth: int = 0) -> Iterator[Any]:
    """Returns a TracebackException with those of its causes, contexts and groups."""
    yield made
    if depth < 100:
        for other in (made.__cause__, made.__context__, *(getattr(made, "exceptions", None) or ())):
            if other is not None:
                yield from _chain(other, depth + 1)


@functools.cache
def _folded_summary() -> type:
    import traceback

    plain = traceback.StackSummary

    class FoldedSummary(plain):  # type: ignore[misc, valid-type]
        """A stack whose text has one line for each uninterrupted part of folded frames."""

        def format(self, **options: Any) -> list[str]:
            lines: list[str] = []
            for packages, frames in _parts(self):
                text = plain.from_list(frames).format(**options)
                lines += _fold(text, packages) if packages else _bounded(text)
            return lines

    return FoldedSummary


def _parts(stack: Any) -> Iterator[tuple[list[str], list[Any]]]:
    """Splits a stack where folded frames begin or end. The list of packages is empty for frames that are shown."""
    packages: list[str] = []
    frames: list[Any] = []
    folded = True  # frames of Python before the first one are folded with it
    for frame in stack:
        package = owner(frame.filename)
        hide = package == FROZEN or bool(package) and (package != "Python" or folded)
        if frames and hide != folded:
            yield packages, frames
            packages, frames = [], []
        folded = hide
        frames.append(frame)
        if hide and package not in packages:
            packages.append(package)
    if frames:
        yield packages, frames


def _fold(text: list[str], packages: list[str]) -> list[str]:
    names = [name for name in packages if name not in ("Python", FROZEN)] or [name for name in packages if name != FROZEN]
    if not names:
        return []
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    count = _count(text)
    return [f"  ... {count} line{'s' * (count != 1)} of {listed}\n"]


def _bounded(text: list[str]) -> list[str]:
    if _count(text) <= MAX_LINES:
        return text
    lines = "".join(text).splitlines(keepends=True)
    return [*lines[:KEPT], f"  ... {len(lines) - 2 * KEPT} lines\n", *lines[-KEPT:]]


def _count(text: list[str]) -> int:
    return sum(entry.count("\n") for entry in text)


class Traceback:
    """Replaces the module traceback in a module of Gradio: print_exc is handled, everything else is the original's."""

    def __init__(self, original: Any, print_exc: Callable[[], None]) -> None:
        self._original, self._print = original, print_exc

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def print_exc(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            self._original.print_exc(*args, **kwargs)
        else:
            self._print()
