"""Rules about clients: what a program can call, and how."""

from __future__ import annotations

from components import FILES
from context import Space
from endpoints import Endpoint


def check(space: Space) -> None:
    """Runs the rules of this file."""
    space.facts.safely("D501", lambda: endpoints(space))


def endpoints(space: Space) -> None:
    """D501, D502, D503: endpoints that a client does not find under a name of the author's choice."""
    for endpoint in space.endpoints.all:
        if endpoint.kind in ("examples", "render") or endpoint.event in ("load", "unload", "tick"):
            continue
        function = endpoint.function
        if endpoint.api_name is False and function is not None:
            space.facts.add("D501", endpoint.module.path, _line(endpoint), function=space.name(function), role=endpoint.role())
        elif endpoint.kind == "event" and function is not None and function.is_lambda and endpoint.api_name is None:
            space.facts.add("D502", endpoint.module.path, endpoint.line, role=endpoint.role())
        elif endpoint.kind == "route" and function is not None:
            space.facts.add(
                "D503", endpoint.module.path, endpoint.line, what=f"the {endpoint.role()}", why="a plain route is no endpoint of Gradio"
            )
        elif endpoint.js and endpoint.expression is None and endpoint.kind == "event":
            space.facts.add(
                "D503",
                endpoint.module.path,
                endpoint.line,
                what=f"the {endpoint.role()}",
                why="it is JavaScript in the page (js=) without a Python function",
            )
    files(space)


def files(space: Space) -> None:
    """D504: a client must upload the files of an endpoint."""
    for endpoint in space.endpoints.all:
        name = endpoint.name()
        if not name or not endpoint.inputs or endpoint.kind not in ("event", "interface"):
            continue
        kinds = [c for c in endpoint.inputs if c.kind in FILES]
        if kinds:
            space.facts.add("D504", endpoint.module.path, endpoint.line, endpoint=f"/{name}", kind=kinds[0].kind)
            return


def _line(endpoint: Endpoint) -> int:
    node = endpoint.keywords.get("api_name") or endpoint.keywords.get("api_visibility")
    return getattr(node, "lineno", endpoint.line)
