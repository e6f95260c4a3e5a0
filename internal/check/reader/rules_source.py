"""Rules about the source itself: syntax, own modules and names that are missing, a folder that hides `spaces`."""

from __future__ import annotations

import ast
import os
from typing import List

from context import Space, line_of
from order import Event
from project import bound_names, has_dynamic_names
from scopes import ModuleScope

FETCHING = (
    "git.Repo.clone_from",
    "huggingface_hub.snapshot_download",
    "huggingface_hub.hf_hub_download",
    "urllib.request.urlretrieve",
    "wget.download",
    "gdown.download",
    "os.system",
    "subprocess.run",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.Popen",
    "subprocess.check_output",
    "zipfile.ZipFile",
    "shutil.unpack_archive",
    "os.symlink",
    "shutil.copytree",
    "shutil.move",
    "shutil.copy",
)


def check(space: Space) -> None:
    """Runs the rules of this file."""
    space.facts.safely("S600", lambda: syntax(space))
    space.facts.safely("S605", lambda: missing(space))
    space.facts.safely("E306", lambda: hidden_spaces(space))


def syntax(space: Space) -> None:
    """S600: a file that Python cannot parse. A file that is imported in a `try` is only reported as not looked at."""
    guarded = _guarded_files(space)
    for path, problem in space.project.problems.items():
        if problem.certain and path not in guarded:
            space.facts.add("S600", path, problem.line, problem=problem.text)
        else:
            at = f"{path}:{problem.line}" if problem.line else path
            space.facts.skip(f"{at}: not checked, because the file {_verb(problem.text)}")
    for path in space.project.skipped:
        space.facts.skip(f"{path}: not checked, because the Space has too many modules")


def _verb(text: str) -> str:
    return text if text.startswith(("is ", "cannot ")) else f"cannot be parsed by this Python: {text}"


def _guarded_files(space: Space) -> List[str]:
    """Returns the files that no certain, unguarded import loads while the app is imported."""
    needed = {space.project.app}
    for _, module, name, caught, certain in space.order.imports:
        if not caught and certain:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                path, _ = space.project.find(".".join(parts[:end]))
                if path is not None:
                    needed.add(path)
    for event in space.at_import:
        if isinstance(event.node, ast.ImportFrom) and event.certain and not event.caught:
            base = space.project.absolute(event.scope.module, event.node.module or "", event.node.level)
            for alias in event.node.names:
                path, _ = space.project.find(f"{base}.{alias.name}") if base else (None, False)
                if path is not None:
                    needed.add(path)
    return [path for path in space.project.problems if path not in needed]


def missing(space: Space) -> None:
    """S605: an import along the way of the app needs a name or a module of the Space that is not there."""
    fetched = _fetches(space)
    for event in space.at_import:
        if not event.certain or event.caught or not isinstance(event.node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(event.node, ast.ImportFrom):
            _from(space, event, event.node, fetched)
        else:
            for alias in event.node.names:
                _module(space, event, alias.name, fetched)


def _fetches(space: Space) -> bool:
    """Reports whether code that runs at import may create files, and with them modules."""
    for event in space.at_import:
        node = event.node
        if isinstance(node, ast.Call):
            extracts = isinstance(node.func, ast.Attribute) and node.func.attr == "extractall"
            if extracts or space.library(node, event.scope) in FETCHING:
                return True
    return bool(space.order.dynamic)


def _module(space: Space, event: Event, name: str, fetched: bool) -> bool:
    """Reports an own module that is missing. Returns whether it is there or unknown."""
    path, own = space.project.find(name)
    if (
        path is not None
        or not own
        or fetched
        or not space.project.is_certain(name)
        or space.project.is_namespace(name)
        or space.project.may_be_built(name)
    ):
        return True
    if name.split(".")[0] in ("spaces", "gradio", "torch"):
        return True
    if space.names.own_module(name.rsplit(".", 1)[0]) is None:
        return True
    space.facts.add(
        "S605",
        event.scope.module.path,
        line_of(event.node),
        what=f"module {name}",
        where=name.split(".")[0],
        error=f"ModuleNotFoundError: No module named '{name}'",
    )
    return False


def _from(space: Space, event: Event, node: ast.ImportFrom, fetched: bool) -> None:
    module = event.scope.module
    base = space.project.absolute(module, node.module or "", node.level)
    if base is None:
        if node.level and module.name.count(".") == 0 and not module.path.endswith("__init__.py"):
            shown = "." * node.level + (node.module or "")
            space.facts.add(
                "S605",
                module.path,
                line_of(node),
                what=f"package for `from {shown} import`",
                where=module.path,
                error="ImportError: attempted relative import with no known parent package",
            )
        return
    if base.split(".")[0] in ("spaces", "gradio", "torch") or not _module(space, event, base, fetched):
        return
    path, _ = space.project.find(base)
    inner = space.project.load(path, base) if path is not None else None
    if inner is None or inner is module or not space.project.is_certain(base):
        return
    for alias in node.names:
        if alias.name != "*" and not _has(space, inner, base, alias.name, fetched):
            space.facts.add(
                "S605",
                module.path,
                line_of(node),
                what=alias.name,
                where=inner.path,
                error=f"ImportError: cannot import name '{alias.name}' from '{base}'",
            )


def _has(space: Space, inner: ModuleScope, base: str, name: str, fetched: bool) -> bool:
    if name in bound_names(inner) or space.names.of_bindings(inner, name):
        return True
    for star, level in inner.stars:
        other = space.project.module_of(space.project.absolute(inner, star, level))
        if other is not None and name in bound_names(other):
            return True
    if has_dynamic_names(space.project, inner):
        return True
    if inner.path.endswith("__init__.py"):
        path, _ = space.project.find(f"{base}.{name}")
        folder = os.path.join(space.project.root, os.path.dirname(inner.path), name)
        return path is not None or os.path.isdir(folder) or fetched or space.project.may_be_built(f"{base}.{name}")
    return False


def hidden_spaces(space: Space) -> None:
    """E306: a file or package of the Space has the name of the package `spaces`."""
    for folder in space.project.folders[:2]:
        for name in ("spaces.py", "spaces/__init__.py"):
            path = f"{folder}/{name}" if folder else name
            if space.project.is_file(path):
                space.facts.add("E306", path, 1, path=path)
                return
