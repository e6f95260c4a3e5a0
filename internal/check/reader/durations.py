"""Evaluates the duration function of a GPU function at the extremes of its inputs."""

from __future__ import annotations

import ast
import datetime
import itertools
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from components import Component
from endpoints import Endpoint, Endpoints, special_parameters
from evaluate import Evaluator, Failed, Opaque, Picture, Unknown, bind
from folding import Folding
from gpu import GPUFunction, GPUFunctions
from names import Names
from scopes import Function, ModuleScope, Scope

MAX_COMBINATIONS = 3000
PICTURES = [Picture(1024, 1024), Picture(1024, 768), Picture(768, 1024)]
PICTURE_KINDS = ("Image",)


@dataclass
class CallSite:
    """A call of a GPU function: what each argument can be. node is the call or the endpoint's binding."""

    node: ast.AST
    module: ModuleScope
    positional: List[Any]  # a Component, or a Value
    named: Dict[str, Any]
    complete: bool = True  # False: some arguments are unknown, so the number is not


@dataclass(frozen=True)
class Value:
    """A constant argument."""

    value: Any


@dataclass
class Durations:
    """The seconds at the extremes. longest and shortest are (seconds, inputs by parameter)."""

    longest: Optional[Tuple[float, Dict[str, Any]]] = None
    shortest: Optional[Tuple[float, Dict[str, Any]]] = None
    failed: Optional[Tuple[str, Dict[str, Any]]] = None
    complete: bool = True
    result: Any = None  # a result that is no number of seconds
    unknown: str = ""
    site: Optional[CallSite] = field(default=None)


class DurationReader:
    """Binds duration functions to the calls of their GPU functions."""

    def __init__(self, names: Names, folding: Folding, gpu: GPUFunctions, endpoints: Endpoints, modules: List[ModuleScope]) -> None:
        self.names, self.folding, self.gpu, self.endpoints, self.modules = names, folding, gpu, endpoints, modules
        self.evaluator = Evaluator(folding)
        self._calls: Optional[Dict[Function, List[Tuple[ast.Call, ModuleScope]]]] = None

    def function_of(self, gpu: GPUFunction) -> Optional[Function]:
        """Returns the Space's function that computes the duration. None: it is unknown, or functools.partial adds arguments to it."""
        decoration = gpu.decoration
        if decoration.duration is None or decoration.scope is None:
            return None
        found = [ref for ref in self.names.resolve(decoration.duration, decoration.scope) if ref.function is not None]
        return found[0].function if len(found) == 1 and not found[0].partial else None

    def sites(self, gpu: GPUFunction) -> List[CallSite]:
        """Returns the calls of a GPU function by endpoints and by code outside of GPU functions."""
        found = [self._of_endpoint(gpu, e) for e in self.endpoints.of(gpu.function) if e.kind not in ("route", "render")]
        found += [self._of_call(node, module) for node, module in self._calls_of(gpu.function)]
        return [site for site in found if site is not None]

    def is_called_outside(self, gpu: GPUFunction) -> bool:
        """Reports whether an endpoint, or code outside of GPU functions, calls the GPU function."""
        return bool(self.endpoints.of(gpu.function) or self._calls_of(gpu.function))

    def _calls_of(self, function: Function) -> List[Tuple[ast.Call, ModuleScope]]:
        if self._calls is None:
            self._calls = {}
            for module in self.modules:
                for node in module.nodes:
                    if isinstance(node, ast.Call):
                        scope = module.scope_at(node)
                        around = module.function_at(node)
                        if around in self.gpu:
                            continue
                        for called in self.names.functions(node.func, scope):
                            direct = not isinstance(node.func, ast.Call)
                            if called in self.gpu and direct and called is not around:
                                self._calls.setdefault(called, []).append((node, module))
        return self._calls.get(function, [])

    def _of_endpoint(self, gpu: GPUFunction, endpoint: Endpoint) -> Optional[CallSite]:
        if isinstance(endpoint.expression, ast.Call) or endpoint.event == "render":
            return None  # functools.partial and the like add arguments
        function = gpu.function
        if endpoint.inputs is None or endpoint.kind in ("chat", "api"):
            return CallSite(endpoint.node, endpoint.module, [], {}, False)
        _, special = special_parameters(self.names, function)
        arguments: List[Any] = list(endpoint.inputs)
        ordered = [a.arg for a in [*function.node.args.posonlyargs, *function.node.args.args]]
        if function.owner is not None and ordered:
            ordered = ordered[1:]
        defaults = function.node.args.defaults
        first = len(function.node.args.posonlyargs) + len(function.node.args.args) - len(defaults) - (function.owner is not None)
        for index, name in enumerate(ordered):
            if name in special:
                arguments.insert(index, Value(Opaque()))
            elif index >= first and len(arguments) <= index:  # Gradio passes the defaults of the other parameters, too
                value = self.folding.fold(defaults[index - first], function.outer)
                arguments.append(Value(Opaque() if _is_unknown(value) else value))
        if function.owner is not None:
            arguments.insert(0, Value(Opaque()))
        return CallSite(endpoint.node, endpoint.module, arguments, {})

    def _of_call(self, node: ast.Call, module: ModuleScope) -> CallSite:
        scope = module.scope_at(node)
        site = CallSite(node, module, [], {})
        bound = isinstance(node.func, ast.Attribute) and any(ref.instance is not None for ref in self.names.resolve(node.func.value, scope))
        if bound:
            site.positional.append(Value(Opaque()))
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                site.complete = False
            else:
                site.positional.append(self._argument(argument, scope))
        for keyword in node.keywords:
            if keyword.arg is None:
                site.complete = False
            else:
                site.named[keyword.arg] = self._argument(keyword.value, scope)
        return site

    def _argument(self, node: ast.expr, scope: Scope) -> Any:
        """Returns what an argument can be: the input of the handler around it that it passes on, or a constant."""
        if isinstance(node, ast.Name) and scope.function is not None:
            where, bindings = scope.lookup(node.id)
            if where is scope and len(bindings) == 1 and bindings[0].kind == "param":
                return self._input(scope.function, node.id)
        value = self.folding.fold(node, scope)
        return Value(value) if value is not None and not _is_unknown(value) else Value(Opaque())

    def _input(self, handler: Function, parameter: str) -> Any:
        ordered = [a.arg for a in [*handler.node.args.posonlyargs, *handler.node.args.args]]
        if handler.owner is not None:
            ordered = ordered[1:]
        _, special = special_parameters(self.names, handler)
        plain = [name for name in ordered if name not in special]
        for endpoint in self.endpoints.of(handler):
            if endpoint.inputs is not None and endpoint.kind in ("event", "interface") and parameter in plain:
                index = plain.index(parameter)
                if index < len(endpoint.inputs) and not isinstance(endpoint.expression, ast.Call):
                    return endpoint.inputs[index]
        return Value(Opaque())

    def evaluate(self, gpu: GPUFunction, function: Function) -> Durations:
        """Evaluates the duration function for each call of the GPU function."""
        result = Durations()
        for site in self.sites(gpu):
            if site.complete:
                self._site(function, gpu, site, result)
        self._keep_differences(result)
        return result

    @staticmethod
    def _keep_differences(result: Durations) -> None:
        """Leaves the inputs that differ between the longest and the shortest duration."""
        if result.longest is None or result.shortest is None or result.longest[0] == result.shortest[0]:
            return
        (most, high), (least, low) = result.longest, result.shortest
        names = [n for n in high if high.get(n) != low.get(n)]
        result.longest = most, {n: high[n] for n in names}
        result.shortest = least, {n: low[n] for n in names if n in low}

    def _site(self, function: Function, gpu: GPUFunction, site: CallSite, result: Durations) -> None:
        keys: List[Any] = [*range(len(site.positional)), *site.named]
        domains = [_domain(a) for a in [*site.positional, *site.named.values()]]
        for combination in _combinations(domains):
            values = dict(zip(keys, combination))
            positional = [values[i] for i in range(len(site.positional))]
            named = {n: values[n] for n in site.named}
            bound = bind(function, positional, named, self.evaluator)
            if bound is None:
                return
            shown = self._shown(gpu.function, site, values)
            try:
                self._record(self.evaluator.call(function, bound), shown, site, result)
            except Failed as error:
                result.failed = result.failed or (str(error), shown)
            except (Unknown, RecursionError) as error:
                result.complete, result.unknown = False, str(error)
                return

    @staticmethod
    def _record(value: Any, shown: Dict[str, Any], site: CallSite, result: Durations) -> None:
        if isinstance(value, datetime.timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            if value is not None and not isinstance(value, (bool, Opaque, Picture)):
                result.result, result.site = value, site
            return
        if result.longest is None or value > result.longest[0]:
            result.longest, result.site = (float(value), shown), site
        if result.shortest is None or value < result.shortest[0]:
            result.shortest = (float(value), shown)

    @staticmethod
    def _shown(function: Function, site: CallSite, values: Dict[Any, Any]) -> Dict[str, Any]:
        """Returns the values of the inputs by parameter, without constants and unknown ones."""
        ordered = [a.arg for a in [*function.node.args.posonlyargs, *function.node.args.args]]
        found: Dict[str, Any] = {}
        for key, value in values.items():
            given = site.positional[key] if isinstance(key, int) else site.named[key]
            name = ordered[key] if isinstance(key, int) and key < len(ordered) else str(key)
            if isinstance(value, Picture):
                found[name] = f"a picture of {value.width}x{value.height}"
            elif isinstance(given, Component) and len(given.domain() or []) > 1:
                found[name] = value
        return found


def _domain(argument: Any) -> List[Any]:
    if isinstance(argument, Value):
        return [argument.value]
    if argument.kind in PICTURE_KINDS:
        return list(PICTURES)
    domain = argument.domain()
    if domain is not None:
        return list(domain)
    default = argument.default()
    return [default] if not _is_unknown(default) else [Opaque()]


def _is_unknown(value: Any) -> bool:
    return type(value).__name__ == "_Unknown"


def _combinations(domains: List[List[Any]]) -> List[Tuple[Any, ...]]:
    """Returns all combinations; if there are too many, one change at a time, all first and all last values."""
    total = 1
    for domain in domains:
        total *= max(1, len(domain))
    if total <= MAX_COMBINATIONS:
        return list(itertools.product(*domains))
    first = tuple(d[0] for d in domains)
    last = tuple(d[-1] for d in domains)
    high = tuple(max(d, key=lambda v: v if isinstance(v, (int, float)) else 0) for d in domains)
    found = [first, last, high]
    for index, domain in enumerate(domains):
        found.extend((*high[:index], value, *high[index + 1 :]) for value in domain)
    return found
