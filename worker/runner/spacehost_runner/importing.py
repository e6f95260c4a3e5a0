"""Runs the runner's code around the imports of named modules."""
from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Finder:
    """A meta path finder that patches what the other finders load.

    patches run after a module is imported; contexts are entered around its import. The finder is never removed: an
    import that failed, or an app that has upgraded Gradio with pip, imports a module a second time.
    """

    def __init__(
        self,
        patches: dict[str, Callable[[Any], None]],
        contexts: dict[str, Callable[[], contextlib.AbstractContextManager[None]]],
    ) -> None:
        self.patches, self.contexts = patches, contexts

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self.patches and name not in self.contexts:
            return None
        others = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        spec = next((found for f in others if (found := f.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return spec
        loader, execute, patch = spec.loader, spec.loader.exec_module, self.patches.get(name)

        def exec_module(module: Any) -> None:
            loader.__dict__.pop("exec_module", None)  # undoes the assignment below
            with self.contexts.get(name, contextlib.nullcontext)():
                execute(module)
            if patch is not None:
                patch(module)

        loader.exec_module = exec_module
        return spec
