"""Finds the environment variables that a Space reads: its Secrets and Variables."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from typing import Dict, List, Optional, Set

from context import Space, line_of
from folding import UNKNOWN
from scopes import Scope
from source import read_text

# Set by the Hub or the base image, by a shell, or by an author for a library: no Secret of the Space
# (huggingface.co/docs/hub/spaces-overview, helper environment variables).
SET_BY_HUB = {
    "SPACE_ID",
    "SPACE_HOST",
    "SPACE_AUTHOR_NAME",
    "SPACE_REPO_NAME",
    "SPACE_TITLE",
    "SPACE_CREATOR_USER_ID",
    "ACCELERATOR",
    "CPU_CORES",
    "MEMORY",
    "SYSTEM",
    "SPACES_ZERO_GPU",
    "SPACES_ZERO_DEVICE_API_URL",
    "HOME",
    "PATH",
    "PYTHONPATH",
    "USER",
    "PWD",
    "LANG",
    "TMPDIR",
    "HOSTNAME",
    "LD_LIBRARY_PATH",
    "GRADIO_SERVER_PORT",
    "GRADIO_SERVER_NAME",
    "SHELL",
    "TERM",
    "OAUTH_CLIENT_ID",
    "OAUTH_CLIENT_SECRET",
    "OAUTH_SCOPES",
    "OPENID_PROVIDER_URL",
    "PYTHONUNBUFFERED",
    "CUDA_VISIBLE_DEVICES",
    "GRADIO_TEMP_DIR",
    "SPACES_GRADIO_AUTO_WRAP",
    "HF_ENDPOINT",
}
DOTENV = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", re.M)
READERS = ("os.getenv", "os.environ.get", "os.environ.pop")


@dataclass
class Variable:
    """One read of a variable. required: without it the read raises KeyError."""

    name: str
    path: str
    line: int
    required: bool
    at_import: bool
    certain: bool

    def describe(self) -> Dict[str, object]:
        """Returns the JSON of the inventory."""
        return {"name": self.name, "file": self.path, "line": self.line, "required": self.required, "at_import": self.at_import}


def variables(space: Space) -> List[Variable]:
    """Returns the variables that reachable code reads, each place once."""
    own = _written(space)
    found: List[Variable] = []
    seen: Set[int] = set()
    for event in space.at_import:
        _add(space, event.node, event.scope, True, event.certain and not event.caught, own, seen, found)
    for runs in [*space.outside().values(), *space.inside().values()]:
        for run in runs:
            _add(space, run.node, run.scope, False, run.certain and not run.caught, own, seen, found)
    return found


def _written(space: Space) -> Set[str]:
    """Returns the variables that the Space itself sets or tests for, and those of an .env that it loads."""
    found: Set[str] = set()
    for module in space.modules:
        for node in module.nodes:
            scope = None
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
                scope = module.scope_at(node)
                if space.names.library(node.value, scope) == "os.environ":
                    found.add(_text(space, node.slice, scope))
            elif isinstance(node, ast.Call) and space.library(node, module.scope_at(node)) in ("dotenv.load_dotenv", "dotenv.main.load_dotenv"):
                found.update(DOTENV.findall(read_text(os.path.join(space.project.root, ".env"))[0] or ""))
            elif (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("setdefault", "update", "putenv")
            ):
                scope = module.scope_at(node)
                if space.library(node, scope) in ("os.environ.setdefault", "os.putenv") and node.args:
                    found.add(_text(space, node.args[0], scope))
            elif isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
                scope = module.scope_at(node)
                if space.names.library(node.comparators[0], scope) == "os.environ":
                    found.add(_text(space, node.left, scope))
    return found


def _text(space: Space, node: ast.AST, scope: Scope) -> str:
    value = space.folding.fold(node, scope)
    return value if isinstance(value, str) else ""


def _handles_missing(scope: Scope, node: ast.AST) -> bool:
    """Reports whether a `try` around the node, in the same function, handles KeyError and does not raise again."""
    kinds = (ast.Try, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    around = scope.module.is_above(node, kinds)
    while isinstance(around, ast.Try):
        if any(inner is node for statement in around.body for inner in ast.walk(statement)) and any(
            isinstance(kind, ast.Name) and kind.id in ("KeyError", "LookupError") and not isinstance(handler.body[-1], ast.Raise)
            for handler in around.handlers
            for kind in (handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type])
        ):
            return True
        around = scope.module.is_above(around, kinds)
    return False


def _add(
    space: Space, node: ast.AST, scope: Scope, at_import: bool, certain: bool, own: Set[str], seen: Set[int], found: List[Variable]
) -> None:
    name: Optional[str] = None
    required = False
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and space.names.library(node.value, scope) == "os.environ":
        name, required = _text(space, node.slice, scope), not _handles_missing(scope, node)
    elif isinstance(node, ast.Call) and node.args and space.library(node, scope) in READERS:
        name = _text(space, node.args[0], scope)
    if not name or id(node) in seen or name in SET_BY_HUB:
        return
    seen.add(id(node))
    found.append(Variable(name, scope.module.path, line_of(node), required and name not in own, at_import, certain))
