"""Finds the handlers of an app: functions that Gradio or FastAPI calls for a visitor, with their inputs and API names."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from components import Component, component
from folding import UNKNOWN, Folding
from names import Names, Ref
from scopes import Function, ModuleScope, Scope

EVENTS = {
    "click",
    "double_click",
    "change",
    "input",
    "submit",
    "select",
    "load",
    "unload",
    "upload",
    "clear",
    "edit",
    "play",
    "pause",
    "stop",
    "end",
    "release",
    "stream",
    "like",
    "tick",
    "then",
    "success",
    "failure",
    "focus",
    "blur",
    "key_up",
    "apply",
    "delete",
    "undo",
    "retry",
    "expand",
    "collapse",
    "copy",
    "download",
    "start_recording",
    "stop_recording",
    "pause_recording",
    "option_select",
    "example_select",
}
INTERFACES = ("Interface", "ChatInterface")
ROUTES = {"get", "post", "put", "delete", "patch", "websocket", "api_route", "route"}
SERVERS = ("gradio.Server()", "gradio.server.Server()")


@dataclass(eq=False)
class Endpoint:
    """One binding of a function. kind: event, interface, chat, api, render, route, examples. function: None for js= alone."""

    kind: str
    node: ast.Call
    module: ModuleScope
    function: Optional[Function]
    expression: Optional[ast.expr]  # that stands for the function
    api_name: Any = None  # a name, False, None (the function's), or UNKNOWN
    event: str = ""
    label: str = ""  # of the component that triggers it
    inputs: Optional[List[Component]] = None  # None: unknown
    js: bool = False
    keywords: Dict[str, ast.expr] = field(default_factory=dict)

    @property
    def line(self) -> int:
        return self.node.lineno

    def name(self) -> str:
        """Returns the API name, without the suffix of a duplicate; "" for a hidden or unnamed endpoint."""
        if self.api_name is False or self.kind in ("route", "render", "examples"):
            return ""
        if isinstance(self.api_name, str):
            return self.api_name
        if self.kind in ("interface", "chat"):
            return "predict" if self.kind == "interface" else "chat"
        if self.function is None:
            return ""
        return "lambda" if self.function.is_lambda else self.function.name

    def role(self) -> str:
        """Returns what calls the function, in words."""
        if self.kind == "route":
            return f"route {self.label}"
        if self.kind == "event":
            return f'handler of "{self.label}"' if self.label else f"handler of {self.event}"
        names = {
            "interface": "gr.Interface",
            "chat": "gr.ChatInterface",
            "api": "an API endpoint",
            "render": "gr.render",
            "examples": "gr.Examples",
        }
        return f"handler of {names[self.kind]}"


class Endpoints:
    """All endpoints of the given modules, in the order of the code."""

    def __init__(self, names: Names, folding: Folding, modules: List[ModuleScope]) -> None:
        self.names, self.folding = names, folding
        self.all: List[Endpoint] = []
        for module in modules:
            for node in module.nodes:
                if isinstance(node, ast.Call):
                    self._call(node, module)
                elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self._decorated(node, module)
        self.all.sort(key=lambda e: (modules.index(e.module), e.node.lineno))

    def of(self, function: Function) -> List[Endpoint]:
        """Returns the endpoints that call a function."""
        return [e for e in self.all if e.function is function]

    def _call(self, node: ast.Call, module: ModuleScope) -> None:
        scope = module.scope_at(node)
        name = self.names.library(node.func, scope)
        last = name.rsplit(".", 1)[-1]
        if name.startswith("gradio.") and last in INTERFACES and "()" not in name:
            self._interface(node, scope, last)
        elif name in ("gradio.on", "gradio.events.on", "gradio.api", "gradio.events.api"):
            if "fn" in _keywords(node) or last == "api" and node.args or len(node.args) > 1:
                self._bound(node, scope, "api" if last == "api" else "event", 0 if last == "api" else 1, "gr.on")
        elif name in ("gradio.Examples", "gradio.helpers.Examples"):
            self._bound(node, scope, "examples", 3, "examples", inputs=1)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in EVENTS:
            self._event(node, scope, node.func)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in ("add_api_route", "add_route") and len(node.args) > 1:
            self._add(
                Endpoint("route", node, module, self._function(node.args[1], scope), node.args[1], label=self._path(node, scope)), node
            )

    def _event(self, node: ast.Call, scope: Scope, func: ast.Attribute) -> None:
        refs = self.names.resolve(func.value, scope)
        known = any(ref.library.startswith("gradio.") and "()" in ref.library for ref in refs)
        foreign = any(not ref.library.startswith("gradio.") for ref in refs)
        keywords = _keywords(node)
        if not known and (foreign or not ({"inputs", "outputs", "api_name", "fn"} & set(keywords) or self._looks_bound(node, scope))):
            return
        if not node.args and not ({"fn", "js", "_js"} & set(keywords)):
            return
        label = ""
        for ref in refs:
            if ref.call is not None and ref.call_scope is not None and func.attr not in ("then", "success"):
                label = self._label(ref)
        self._bound(node, scope, "event", 0, func.attr, label=label)

    def _looks_bound(self, node: ast.Call, scope: Scope) -> bool:
        """Reports whether positional arguments look like a handler's: a function, then components."""
        if len(node.args) < 2 or not self.names.functions(node.args[0], scope):
            return False
        parts = [e for a in node.args[1:3] for e in (a.elts if isinstance(a, (ast.List, ast.Tuple)) else [a])]
        return any(component(self.names, self.folding, part, scope).kind for part in parts)

    def _label(self, ref: Ref) -> str:
        call, scope = ref.call, ref.call_scope
        if call is None or scope is None:
            return ""
        keywords = _keywords(call)
        button = ref.library.rstrip("()").endswith("Button")
        node = keywords.get("value" if button else "label") or (call.args[0] if button and call.args else None)
        value = self.folding.fold(node, scope)
        return value if isinstance(value, str) else ""

    def _interface(self, node: ast.Call, scope: Scope, kind: str) -> None:
        self._bound(node, scope, "interface" if kind == "Interface" else "chat", 0, kind)

    def _bound(self, node: ast.Call, scope: Scope, kind: str, index: int, event: str, label: str = "", inputs: int = -1) -> None:
        keywords = _keywords(node)
        expression = keywords.get("fn") or (node.args[index] if len(node.args) > index else None)
        if isinstance(expression, ast.Constant) and expression.value is None:
            expression = None
        inputs = index + 1 if inputs < 0 else inputs
        given = keywords.get("inputs") or (node.args[inputs] if len(node.args) > inputs else None)
        js = "js" in keywords or "_js" in keywords
        found = self.names.functions(expression, scope) if expression is not None else []
        common = Endpoint(kind, node, scope.module, None, expression, self._api_name(keywords, scope), event, label, None, js, keywords)
        if kind != "chat":
            common.inputs = self._inputs(given, scope)
        if not found and (expression is not None or js):
            self._add(common, node)
        for function in found[:3]:
            made = Endpoint(kind, node, scope.module, function, expression, common.api_name, event, label, common.inputs, js, keywords)
            self._add(made, node)

    def _add(self, endpoint: Endpoint, node: ast.Call) -> None:
        if not any(e.node is node and e.function is endpoint.function for e in self.all):
            self.all.append(endpoint)

    def _api_name(self, keywords: Dict[str, ast.expr], scope: Scope) -> Any:
        visibility = self.folding.fold(keywords.get("api_visibility"), scope) if "api_visibility" in keywords else None
        if visibility == "private":
            return False
        return self.folding.fold(keywords["api_name"], scope) if "api_name" in keywords else None

    def _inputs(self, node: Optional[ast.expr], scope: Scope, depth: int = 0) -> Optional[List[Component]]:
        """Returns the inputs, [] for none, or None if they are unknown."""
        if node is None or (isinstance(node, ast.Constant) and node.value is None):
            return []
        if isinstance(node, (ast.List, ast.Tuple)):
            if any(isinstance(e, ast.Starred) for e in node.elts):
                return None
            return [component(self.names, self.folding, e, scope) for e in node.elts]
        if isinstance(node, ast.Set):
            return None
        if isinstance(node, ast.Name) and depth < 5:
            where, bindings = scope.lookup(node.id)
            if (
                where is not None
                and len(bindings) == 1
                and bindings[0].kind == "assign"
                and isinstance(bindings[0].value, (ast.List, ast.Tuple, ast.Name))
            ):
                return self._inputs(bindings[0].value, where, depth + 1)
        single = component(self.names, self.folding, node, scope)
        return [single] if single.kind else None

    def _function(self, node: ast.expr, scope: Scope) -> Optional[Function]:
        found = self.names.functions(node, scope)
        return found[0] if found else None

    def _decorated(self, node: ast.AST, module: ModuleScope) -> None:
        """Adds routes (`@app.get`), `@app.api`, `@gr.render` and events in decorator form (`@button.click`)."""
        function = module.by_node[node]
        for decorator in function.decorators:
            if not isinstance(decorator, ast.Call):
                continue
            found = [ref.library for ref in self.names.resolve(decorator.func, function.outer) if ref.library]
            served = [n for n in found if n.startswith(SERVERS)]
            name = served[0] if served else found[0] if found else ""
            attr = decorator.func.attr if isinstance(decorator.func, ast.Attribute) else ""
            if name in ("gradio.render", "gradio.renderable.render"):
                self._add(Endpoint("render", decorator, module, function, None, inputs=None), decorator)
            elif attr == "api" and name.startswith(SERVERS):
                given = self.folding.fold(_keywords(decorator).get("name"), function.outer)
                self._add(
                    Endpoint("api", decorator, module, function, None, given if isinstance(given, str) else None, inputs=None), decorator
                )
            elif attr in ROUTES and ("()" in name and not name.startswith("gradio.") or name.startswith(SERVERS)):
                self._add(Endpoint("route", decorator, module, function, None, label=self._path(decorator, function.outer)), decorator)
            elif attr in EVENTS and name.startswith("gradio.") and "()" in name or name in ("gradio.on", "gradio.events.on"):
                keywords = _keywords(decorator)
                inputs = self._inputs(keywords.get("inputs") or (decorator.args[0] if decorator.args else None), function.outer)
                made = Endpoint(
                    "event",
                    decorator,
                    module,
                    function,
                    None,
                    self._api_name(keywords, function.outer),
                    attr or "gr.on",
                    "",
                    inputs,
                    keywords=keywords,
                )
                self.all = [e for e in self.all if e.node is not decorator]
                self.all.append(made)

    def _path(self, node: ast.Call, scope: Scope) -> str:
        path = self.folding.fold(node.args[0], scope) if node.args else UNKNOWN
        attr = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        verb = attr.upper() if attr in ("get", "post", "put", "delete", "patch") else ""
        return f"{verb} {path if isinstance(path, str) else ''}".strip()


def _keywords(node: ast.Call) -> Dict[str, ast.expr]:
    return {k.arg: k.value for k in node.keywords if k.arg is not None}


def special_parameters(names: Names, function: Function) -> Tuple[List[str], List[str]]:
    """Returns the parameters that Gradio fills itself: those of event data, and all (gradio 6.31.0, helpers.py, special_args)."""
    events: List[str] = []
    special: List[str] = []
    arguments = function.node.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    for argument in ordered:
        annotation = argument.annotation
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                annotation = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                continue
        last = names.library(annotation, function.outer) if annotation is not None else ""
        if last.startswith("gradio."):
            kind = last.rsplit(".", 1)[-1]
            if kind.endswith("Data") and kind not in ("FileData", "ImageData", "ListFiles"):
                events.append(argument.arg)
                special.append(argument.arg)
            elif kind in ("Request", "OAuthProfile", "OAuthToken", "Header"):
                special.append(argument.arg)
    for argument, default in zip(reversed(ordered), reversed(arguments.defaults)):
        if isinstance(default, ast.Call) and names.library(default.func, function.outer).rsplit(".", 1)[-1] == "Progress":
            special.append(argument.arg)
    return events, special
