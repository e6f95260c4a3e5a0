"""Finds the Space's own modules by the names under which the code imports them."""

from __future__ import annotations

import ast
import os
from typing import Dict, List, Optional, Set, Tuple

from scopes import Binding, ModuleScope
from source import Problem, Source, read

MAX_MODULES = 2000
COMPILED = (".so", ".pyd", ".pyx", ".c", ".cpp", ".cu", ".pyi", ".in")


class Project:
    """The own modules of a Space, parsed on first use. root is the Space's folder, app the app_file relative to it."""

    def __init__(self, root: str, app: str) -> None:
        self.root, self.app = os.path.realpath(root), app.replace(os.sep, "/")
        self.folders: List[str] = []  # of sys.path, relative to root
        self.modules: Dict[str, Optional[ModuleScope]] = {}  # by path
        self.sources: Dict[str, Source] = {}
        self.problems: Dict[str, Problem] = {}
        self.skipped: List[str] = []
        self._found: Dict[str, Tuple[Optional[str], bool]] = {}
        self.add_folder(os.path.dirname(self.app))
        self.add_folder("")

    def add_folder(self, folder: str) -> None:
        """Adds a folder of sys.path. Folders outside of the Space are ignored."""
        folder = os.path.normpath(folder or ".").replace(os.sep, "/")
        folder = "" if folder == "." else folder
        if not folder.startswith("..") and not os.path.isabs(folder) and folder not in self.folders:
            self.folders.append(folder)
            self._found.clear()

    def load(self, path: str, name: str) -> Optional[ModuleScope]:
        """Parses the file once. None: it cannot be parsed, and problems has the reason."""
        if path in self.modules:
            return self.modules[path]
        if len(self.modules) >= MAX_MODULES:
            self.skipped.append(path)
            return None
        source, problem = read(self.root, path)
        self.modules[path] = None
        if source is None:
            if problem is not None:
                self.problems[path] = problem
            return None
        self.sources[path] = source
        try:
            self.modules[path] = ModuleScope(path, name, source.tree)
        except RecursionError:
            self.problems[path] = Problem(0, "is nested too deeply", False)
        return self.modules[path]

    def is_file(self, path: str) -> bool:
        """Reports whether a regular file of the Space has this path. A link must not lead out of the Space."""
        full = os.path.join(self.root, path)
        return os.path.isfile(full) and os.path.realpath(full).startswith(self.root + os.sep)

    def find(self, name: str) -> Tuple[Optional[str], bool]:
        """Returns the file of the module with that absolute name, and whether its top-level name is an own package or file.

        A package's file is its __init__.py. A folder without one is a namespace: it has no file.
        """
        if name not in self._found:
            self._found[name] = None, False
            for folder in self.folders:
                found = self._find_in(folder, name.split("."))
                if found != (None, False):
                    self._found[name] = found
                    break
        return self._found[name]

    def _find_in(self, folder: str, parts: List[str]) -> Tuple[Optional[str], bool]:
        own = False
        for depth, part in enumerate(parts):
            base = f"{folder}/{part}" if folder else part
            last = depth == len(parts) - 1
            if self.is_file(base + "/__init__.py"):
                own = True
                if last:
                    return base + "/__init__.py", True
            elif self.is_file(base + ".py"):
                return (base + ".py" if last else None), True
            elif not os.path.isdir(os.path.join(self.root, base)):
                return None, own
            folder = base
        return None, own

    def is_namespace(self, name: str) -> bool:
        """Reports whether the name is a folder of the Space without __init__.py that contains Python files."""
        below = name.replace(".", "/")
        for folder in self.folders:
            full = os.path.join(self.root, folder, below)
            if os.path.isdir(full) and not os.path.isfile(os.path.join(full, "__init__.py")):
                return True
        return False

    def absolute(self, module: ModuleScope, name: str, level: int) -> Optional[str]:
        """Returns the absolute name of a relative import, or None if it leaves the top-level package."""
        if level == 0:
            return name
        parts = module.name.split(".")
        if not module.path.endswith("/__init__.py"):
            parts = parts[:-1]
        if level - 1 > len(parts):
            return None
        parts = parts[: len(parts) - (level - 1)]
        base = ".".join(parts)
        if not base:
            return None
        return f"{base}.{name}" if name else base

    def module_of(self, name: Optional[str]) -> Optional[ModuleScope]:
        """Returns the own module of that absolute name."""
        if name is None:
            return None
        path, _ = self.find(name)
        return self.load(path, name) if path is not None else None

    def source_module(self, module: ModuleScope, binding: Binding) -> Optional[ModuleScope]:
        """Returns the own module that an import statement names."""
        return self.module_of(self.absolute(module, binding.module, binding.level))

    def may_be_built(self, name: str) -> bool:
        """Reports whether a missing module may be compiled or generated: C extensions, version files, protobuf."""
        last = name.rsplit(".", 1)[-1]
        if last.lower() in ("version", "_version", "__version__") or last.endswith(("_pb2", "_pb2_grpc")) or last.startswith("_"):
            return True
        below = name.replace(".", "/")
        for folder in self.folders:
            base = os.path.join(self.root, folder, below)
            parent = os.path.dirname(base)
            try:
                names = os.listdir(parent) if os.path.isdir(parent) else []
            except OSError:
                return True
            if any(n.startswith(os.path.basename(base) + ".") and n.endswith(COMPILED) for n in names):
                return True
        return False

    def python_files(self, limit: int = 5000) -> List[str]:
        """Returns the paths of all Python files of the Space. Hidden folders, environments and links are left out."""
        return [path for path in self.files(limit) if path.endswith(".py")]

    def files(self, limit: int = 5000) -> List[str]:
        """Returns the paths of the Space's files, at most limit."""
        found: List[str] = []
        for folder, folders, names in os.walk(self.root, followlinks=False):
            folders[:] = sorted(
                f for f in folders if not f.startswith(".") and f not in ("node_modules", "__pycache__", "venv", "site-packages")
            )
            for name in sorted(names):
                if len(found) >= limit:
                    return found
                full = os.path.join(folder, name)
                if not os.path.islink(full):
                    found.append(os.path.relpath(full, self.root).replace(os.sep, "/"))
        return found


def bound_names(module: ModuleScope) -> Set[str]:
    """Returns the names that a module defines at its top level."""
    return set(module.bindings) | {"__name__", "__file__", "__doc__", "__path__", "__package__", "__spec__", "__version__", "__all__"}


def has_dynamic_names(project: Project, module: ModuleScope) -> bool:
    """Reports whether a module may define names that reading cannot see."""
    if "__getattr__" in module.bindings:
        return True
    for name, level in module.stars:
        inner = project.module_of(project.absolute(module, name, level))
        if inner is None or inner is module or inner.stars or has_dynamic_names(project, inner):
            return True
    for node in module.nodes:
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in ("globals", "exec", "eval", "setattr", "vars", "locals", "__import__"):
                return True
        elif isinstance(node, ast.Attribute) and node.attr in ("modules", "__dict__", "import_module"):
            return True
    return False
