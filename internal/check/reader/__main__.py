"""Reads a Space without running it, and prints one JSON document. Usage: python -I -S READER FOLDER APP_FILE.

The document has facts (rule, file, line, values, severity), ignores (comments that switch rules off), sentences about what was and
was not looked at, and an inventory for later stages. The exit status is 0 whatever the Space contains.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any, Dict, List

import rules_account
import rules_api
import rules_duration
import rules_gpu
import rules_source
import rules_start
from context import Facts, Space
from inventory import inventory
from source import statement_lines

RECURSION = 3000
LARGEST = 1 << 1000  # of an integer that Go reads as a float64


def document(root: str, app: str) -> Dict[str, Any]:
    """Returns the JSON document about a Space."""
    facts = Facts()
    result: Dict[str, Any] = {"facts": facts.facts, "ignores": [], "looked_at": [], "not_looked_at": facts.not_looked_at, "inventory": None}
    if not os.path.isfile(os.path.join(root, app)):
        facts.skip(f"{app}: not checked, because there is no such file")
        return result
    spaces: List[Space] = []
    facts.safely("the Python files", lambda: spaces.append(Space(root, app, facts)))
    for space in spaces:
        for rules in (rules_source, rules_start, rules_gpu, rules_account, rules_api, rules_duration):
            rules.check(space)
        for path, line, what in space.order.dynamic:
            facts.skip(
                f"{path}:{line}: code that {'the line' if what.startswith('adds') else 'it'} loads is not followed, because it {what}"
            )
        result["ignores"] = _ignores(space)
        result["looked_at"] = _looked_at(space)
        result["inventory"] = inventory(space)
        notebooks = [path for path in space.project.files() if path.endswith(".ipynb")]
        if notebooks:
            facts.skip(f"{notebooks[0]}: not checked, because notebooks are not read")
    return result


def _looked_at(space: Space) -> List[str]:
    modules = [m.path for m in space.modules]
    if not modules:
        return []
    shown = ", ".join(modules[:5]) + (f" and {len(modules) - 5} more" if len(modules) > 5 else "")
    return [f"Python: {len(modules)} file{'s' * (len(modules) != 1)} in import order ({shown})"]


def _ignores(space: Space) -> List[Dict[str, Any]]:
    """Returns the comments, one entry for each line on which a comment meets a fact, and one for a comment that meets none."""
    found: List[Dict[str, Any]] = []
    for path, source in space.project.sources.items():
        for comment in source.comments:
            covered = statement_lines(source.tree, comment.line)
            met = {
                f["line"]
                for f in space.facts.facts
                if f["file"] == path and f["line"] in covered and f["rule"].startswith(tuple(comment.rules))
            }
            for line in sorted(met) or [comment.line]:
                entry: Dict[str, Any] = {"file": path, "line": line, "ids": comment.rules}
                if line != comment.at:
                    entry["at"] = comment.at
                found.append(entry)
    return found


def _finite(value: Any) -> Any:
    """Returns the document with null in place of numbers that JSON or float64 lacks: Infinity, NaN and huge integers."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, int) and abs(value) > LARGEST else value


def main() -> None:
    """Prints the document about the folder and app file of the command line."""
    sys.setrecursionlimit(RECURSION)
    result = document(sys.argv[1], sys.argv[2])
    text = json.dumps(_finite(result), ensure_ascii=True, allow_nan=False, default=str)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
