"""Gradio's components, as the code creates them: kind, range, choices and default of an input."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from folding import UNKNOWN, Folding
from names import Names
from scopes import Scope

# Parameters by position (gradio 6.31.0, components/*.py), as far as a position is used in practice.
POSITIONS: Dict[str, List[str]] = {
    "Slider": ["minimum", "maximum", "value"],
    "Number": ["value"],
    "Radio": ["choices"],
    "Dropdown": ["choices"],
    "CheckboxGroup": ["choices"],
    "Checkbox": ["value"],
    "Textbox": ["value"],
    "State": ["value"],
    "Image": ["value"],
}
FILES = {
    "File",
    "Image",
    "Audio",
    "Video",
    "Model3D",
    "ImageEditor",
    "Gallery",
    "UploadButton",
    "MultimodalTextbox",
    "Sketchpad",
    "ImageSlider",
    "Files",
}
SHORTCUTS = {
    "text": "Textbox",
    "textbox": "Textbox",
    "textarea": "Textbox",
    "number": "Number",
    "image": "Image",
    "audio": "Audio",
    "video": "Video",
    "file": "File",
    "checkbox": "Checkbox",
    "slider": "Slider",
    "state": "State",
    "json": "JSON",
    "label": "Label",
    "dataframe": "Dataframe",
    "files": "File",
    "mic": "Audio",
    "microphone": "Audio",
    "sketchpad": "Sketchpad",
    "html": "HTML",
    "markdown": "Markdown",
    "password": "Textbox",
    "list": "Dataframe",
    "gallery": "Gallery",
}
NUMERIC_DEFAULTS = {"minimum": 0, "maximum": 100}  # of a Slider


@dataclass
class Component:
    """An input of an endpoint. kind is the class, "" if unknown."""

    kind: str
    line: int = 0
    label: str = ""
    fields: Dict[str, Any] = field(default_factory=dict)  # folded: minimum, maximum, step, value, choices, multiselect

    def domain(self) -> Optional[List[Any]]:
        """Returns the values that matter for a duration: extremes, choices, the default. None: any value."""
        get = self.fields.get
        if self.kind == "Slider":
            low, high = get("minimum", NUMERIC_DEFAULTS["minimum"]), get("maximum", NUMERIC_DEFAULTS["maximum"])
            if low is UNKNOWN or high is UNKNOWN:
                return None
            value = get("value", low)
            return _distinct([low, high, *([value] if isinstance(value, (int, float)) else [])])
        if self.kind in ("Radio", "Dropdown"):
            choices = get("choices", UNKNOWN)
            if not isinstance(choices, (list, tuple)) or not choices or get("multiselect", False) or get("allow_custom_value", False):
                return None
            return _distinct([c[1] if isinstance(c, (tuple, list)) and len(c) == 2 else c for c in choices])
        if self.kind == "Checkbox":
            return [False, True]
        if self.kind == "Number":
            bounds = [get(n) for n in ("minimum", "maximum", "value")]
            known = _distinct([b for b in bounds if isinstance(b, (int, float)) and not isinstance(b, bool)])
            return known if get("maximum") is not None and known else None
        return None

    def default(self) -> Any:
        """Returns the value with which the component starts, or UNKNOWN."""
        value = self.fields.get("value", UNKNOWN)
        if value is not UNKNOWN and value is not None:
            return value
        if self.kind == "Slider":
            return self.fields.get("minimum", NUMERIC_DEFAULTS["minimum"])
        if self.kind == "Checkbox":
            return False
        if self.kind == "Textbox":
            return ""
        domain = self.domain()
        return domain[0] if domain and self.kind in ("Dropdown",) else UNKNOWN

    def describe(self) -> Dict[str, Any]:
        """Returns the JSON of the inventory."""
        shown = {n: v for n, v in self.fields.items() if v is not UNKNOWN and _is_plain(v)}
        return {"kind": self.kind, "line": self.line, **({"label": self.label} if self.label else {}), **shown}


def component(names: Names, folding: Folding, node: ast.expr, scope: Scope) -> Component:
    """Returns the component that an element of `inputs` stands for."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return Component(SHORTCUTS.get(node.value.lower(), node.value), node.lineno)
    found = [ref for ref in names.resolve(node, scope) if ref.call is not None and ref.library.startswith("gradio.")]
    if len(found) != 1 or found[0].call is None or found[0].call_scope is None:
        return Component("", getattr(node, "lineno", 0))
    call, where = found[0].call, found[0].call_scope
    kind = found[0].library[:-2].rsplit(".", 1)[-1]
    made = Component(kind, call.lineno)
    positions = POSITIONS.get(kind, [])
    for index, argument in enumerate(call.args[: len(positions)]):
        made.fields[positions[index]] = folding.fold(argument, where)
    for keyword in call.keywords:
        if keyword.arg in ("minimum", "maximum", "step", "value", "choices", "multiselect", "allow_custom_value", "type"):
            made.fields[keyword.arg] = folding.fold(keyword.value, where)
        elif keyword.arg == "label":
            label = folding.fold(keyword.value, where)
            made.label = label if isinstance(label, str) else ""
    return made


def _distinct(values: List[Any]) -> List[Any]:
    found: List[Any] = []
    for value in values:
        if not any(type(value) is type(f) and value == f for f in found):
            found.append(value)
    return found


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, (list, tuple)):
        return depth < 4 and len(value) <= 200 and all(_is_plain(v, depth + 1) for v in value)
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < 1000)
