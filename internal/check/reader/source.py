"""Reads the Python files of a Space. No code of the Space runs.

A file that cannot be read or parsed becomes a Problem. Limits keep the reader fast: files above MAX_BYTES are not parsed.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import tokenize
import warnings
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

MAX_BYTES = 2 << 20

_IGNORE = re.compile(r"#\s*spacehost:\s*ignore\[([^\]]*)\]")
# Syntax of Python 3.10 to 3.14, which an older interpreter reports as an error.
_NEWER = re.compile(r"^\s*(match\b|case\b|type\s+\w+|except\s*\*|async def \w+\[|def \w+\[|class \w+\[)")


@dataclass
class Comment:
    """A comment `# spacehost: ignore[F308]` on line at, about the statement that begins on line. rules may be prefixes."""

    at: int
    line: int
    rules: List[str]


@dataclass
class Problem:
    """Why a file was not parsed. certain: the file is wrong for every Python 3."""

    line: int
    text: str
    certain: bool


@dataclass
class Source:
    """One parsed file. path is relative to the Space's folder, with slashes."""

    path: str
    text: str
    tree: ast.Module
    comments: List[Comment] = field(default_factory=list)


def read(root: str, path: str) -> Tuple[Optional[Source], Optional[Problem]]:
    """Returns the parsed file, or the reason why there is none."""
    text, problem = read_text(os.path.join(root, path))
    if text is None:
        return None, problem
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes of the Space's strings
            tree = ast.parse(text, path)
    except SyntaxError as error:
        return None, _syntax_problem(error, text)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, deep nesting
        return None, Problem(0, f"cannot be parsed ({type(error).__name__}: {error})", "null byte" in str(error))
    source = Source(path, text, tree)
    if "spacehost:" in text:
        source.comments = _comments(text)
    return source, None


def read_text(full: str) -> Tuple[Optional[str], Optional[Problem]]:
    """Returns the text of a Python file, in the encoding that it declares, without a byte order mark."""
    try:
        if not os.path.isfile(full):
            return None, Problem(0, "is not a regular file", False)
        if os.path.getsize(full) > MAX_BYTES:
            return None, Problem(0, f"is larger than {MAX_BYTES >> 20} MiB", False)
        with open(full, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (OSError, SyntaxError, UnicodeDecodeError, LookupError) as error:
        wrong = isinstance(error, (SyntaxError, UnicodeDecodeError, LookupError))
        return None, Problem(1 if wrong else 0, f"cannot be decoded ({error})" if wrong else f"cannot be read ({error})", wrong)
    return text.replace("\r\n", "\n").replace("\r", "\n"), None


def _syntax_problem(error: SyntaxError, text: str) -> Problem:
    line = error.lineno or 0
    lines = text.split("\n")
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    newer = sys.version_info < (3, 12) and ((error.msg or "").startswith("f-string") or bool(_NEWER.match(shown)))
    return Problem(line, error.msg or "invalid syntax", not newer)


def _comments(text: str) -> List[Comment]:
    """Returns the comments that switch rules off. A comment alone on its line is about the next statement."""
    found: List[Comment] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                match = _IGNORE.search(token.string)
                if match:
                    rules = match.group(1).replace(",", " ").upper().split()
                    alone = not token.line[: token.start[1]].strip()
                    if rules:  # without an id the comment is malformed, and excludes nothing
                        found.append(Comment(token.start[0], token.start[0] + alone, rules))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        pass
    return found


def statement_lines(tree: ast.Module, line: int) -> range:
    """Returns the lines of the simple statement, or of the head of the compound statement, that begins on the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and line in (node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or line
            return range(line, max(line, last) + 1)
    return range(line, line + 1)
