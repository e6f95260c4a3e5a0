"""Rules about declared durations and sizes. Go compares the seconds with the tiers."""

from __future__ import annotations

import ast
import datetime
import math
from typing import Any, Optional

from context import Space, line_of
from evaluate import bind
from folding import UNKNOWN
from gpu import GPUFunction, seconds
from scopes import Function, own_nodes

DAY = 86400
SIZES = ("large", "xlarge")


def check(space: Space) -> None:
    """Runs the rules of this file."""
    for gpu in space.gpu.all:
        space.facts.safely(f"H402 of {gpu.name}", lambda gpu=gpu: one(space, gpu))  # type: ignore[misc]


def place(gpu: GPUFunction, node: Optional[ast.AST] = None) -> int:
    """Returns the line of the decorator, or of one of its arguments."""
    return line_of(node if node is not None and gpu.decoration.scope is not None else gpu.decoration.node)


def one(space: Space, gpu: GPUFunction) -> None:
    """H402 to H405 and H408 for one GPU function."""
    decoration = gpu.decoration
    path = decoration.scope.module.path if decoration.scope is not None else decoration.module.path
    function = space.durations.function_of(gpu)
    if function is not None:
        signature(space, gpu, function)
        result_type(space, gpu, function)
    elif decoration.duration is not None and decoration.known:
        fixed(space, gpu, seconds(gpu, space.folding), path)
    if decoration.size is not None and decoration.scope is not None and decoration.known:
        size = space.folding.fold(decoration.size, decoration.scope)
        if size is not UNKNOWN and size is not None and size not in SIZES:
            space.facts.add("H408", path, place(gpu, decoration.size), function=gpu.name, size=repr(size))


def fixed(space: Space, gpu: GPUFunction, value: Any, path: str) -> None:
    """H402: the duration is no number. H405: timedelta.seconds of it are not its seconds."""
    line = place(gpu, gpu.decoration.duration)
    if value is UNKNOWN:
        return
    if isinstance(value, (str, bytes, list, tuple, dict)):
        kind = type(value).__name__
        space.facts.add(
            "H402",
            path,
            line,
            function=gpu.name,
            duration=repr(value),
            error=f"TypeError: unsupported type for timedelta seconds component: {kind}",
        )
        return
    if isinstance(value, float) and not math.isfinite(value):
        error = f"cannot convert float {'NaN' if math.isnan(value) else 'infinity'} to integer"
        kind = "ValueError" if math.isnan(value) else "OverflowError"
        space.facts.add("H402", path, line, function=gpu.name, duration=repr(value), error=f"{kind}: {error}")
        return
    total = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if isinstance(total, (int, float)) and not isinstance(total, bool) and not 0 <= total < DAY:
        declared = (value if isinstance(value, datetime.timedelta) else datetime.timedelta(seconds=total)).seconds
        space.facts.add("H405", path, line, function=gpu.name, duration=f"{total:g} s", declared=f"{declared} s")


def signature(space: Space, gpu: GPUFunction, function: Function) -> None:
    """H403: the duration function gets the arguments of the GPU function, and cannot take them."""
    for site in space.durations.sites(gpu):
        if not site.complete:
            continue
        count = len(site.positional) + len(site.named)
        fits = bind(gpu.function, list(site.positional), dict(site.named), space.durations.evaluator) is not None
        if fits and bind(function, list(site.positional), dict(site.named), space.durations.evaluator) is None:
            _wrong_signature(space, gpu, function, f"{count} argument{'s' * (count != 1)} on line {line_of(site.node)}")
            return
    if not _can_fit(gpu.function, function):
        _wrong_signature(space, gpu, function, f"the arguments of {gpu.name}")


def _wrong_signature(space: Space, gpu: GPUFunction, function: Function, given: str) -> None:
    space.facts.add(
        "H403", function.module.path, function.line, duration=space.name(function), takes=_takes(function), function=gpu.name, given=given
    )


def _takes(function: Function) -> str:
    arguments = function.node.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    least, most = len(ordered) - len(arguments.defaults), len(ordered)
    if arguments.vararg is not None:
        return f"at least {least}"
    return str(most) if least == most else f"{least} to {most}"


def _can_fit(gpu: Function, function: Function) -> bool:
    """Reports whether some call of the GPU function fits the duration function: the fewest arguments and the most."""
    theirs, ours = gpu.node.args, function.node.args
    if theirs.vararg is not None or theirs.kwarg is not None or ours.vararg is not None or ours.kwarg is not None:
        return True
    most = len(theirs.posonlyargs) + len(theirs.args)
    least = most - len(theirs.defaults)
    ordered = len(ours.posonlyargs) + len(ours.args)
    return ordered - len(ours.defaults) <= most + len(theirs.kwonlyargs) and ordered + len(ours.kwonlyargs) >= least


def result_type(space: Space, gpu: GPUFunction, function: Function) -> None:
    """H404: the duration function returns no number."""
    if isinstance(function.node, ast.AsyncFunctionDef) or function.is_generator():
        kind = "coroutine" if isinstance(function.node, ast.AsyncFunctionDef) else "generator"
        space.facts.add(
            "H404",
            function.module.path,
            function.line,
            duration=space.name(function),
            result=f"a {kind}",
            outcome=f"TypeError: unsupported type for timedelta seconds component: {kind}",
        )
        return
    evaluated = space.durations.evaluate(gpu, function)
    if isinstance(evaluated.result, (str, list, tuple, dict)):
        kind = type(evaluated.result).__name__
        space.facts.add(
            "H404",
            function.module.path,
            _return_line(function),
            duration=space.name(function),
            result=repr(evaluated.result),
            outcome=f"TypeError: unsupported type for timedelta seconds component: {kind}",
        )
        return
    if isinstance(function.node, ast.Lambda):
        return
    returns = [n for n in own_nodes(function.node) if isinstance(n, ast.Return)]
    texts = [r for r in returns if _is_text(space, r.value, function)]
    if texts and len(texts) == len(returns):
        space.facts.add(
            "H404",
            function.module.path,
            line_of(texts[0]),
            duration=space.name(function),
            result="a text",
            outcome="TypeError: unsupported type for timedelta seconds component: str",
        )
    elif all(r.value is None or (isinstance(r.value, ast.Constant) and r.value.value is None) for r in returns) and not any(
        isinstance(n, ast.Raise) for n in own_nodes(function.node)
    ):
        space.facts.add(
            "H404",
            function.module.path,
            function.line,
            "warning",
            duration=space.name(function),
            result="None",
            outcome="the call declares the default of 60 s",
        )


def _is_text(space: Space, node: Optional[ast.expr], function: Function) -> bool:
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.Call) and space.library(node, function.scope) == "builtins.str":
        return True
    return isinstance(space.folding.fold(node, function.scope), str)


def _return_line(function: Function) -> int:
    return (
        next((line_of(n) for n in own_nodes(function.node) if isinstance(n, ast.Return)), function.line)
        if not function.is_lambda
        else function.line
    )
