"""Rules about Secrets, hardware and quota: what a duplicate lacks, and what visitors or the Space pay for."""

from __future__ import annotations

import ast
import os
import re
from typing import List, Optional, Set, Tuple

from context import Space, keyword, line_of
from folding import UNKNOWN
from reach import Run
from scopes import Function, Scope
from source import read_text
from variables import variables

# Tokens of services, with their lengths: github.com/gitleaks/gitleaks, config/gitleaks.toml.
TOKEN = re.compile(
    r"(?<![A-Za-z0-9_])(hf_[A-Za-z0-9]{34}|sk-(?:proj-|ant-api03-)?[A-Za-z0-9_-]{40,180}|ghp_[A-Za-z0-9]{36}"
    r"|github_pat_[A-Za-z0-9_]{60,90}|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|xox[bp]-[A-Za-z0-9-]{40,80})(?![A-Za-z0-9])"
)
TEST_SERVER = "hub-ci.huggingface.co"  # of huggingface_hub, whose public token copies of its tests and of diffusers contain
TEXT_FILES = (".py", ".env", ".json", ".yaml", ".yml", ".toml", ".txt", ".md", ".sh", ".ini", ".cfg", ".js", ".html")
MAX_TEXT = 1 << 20
LOADERS = {"from_pretrained", "from_single_file", "load_lora_weights", "from_ckpt"}
LOAD_FUNCTIONS = (
    "huggingface_hub.snapshot_download",
    "huggingface_hub.hf_hub_download",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "transformers.pipeline",
    "wget.download",
    "urllib.request.urlretrieve",
)
DEVICE_FACTS = {
    "torch.cuda.get_device_name": "the name of the GPU",
    "torch.cuda.get_device_capability": "the compute capability",
    "torch.cuda.get_device_properties": "the properties of the GPU",
}
KERNELS = ("flash_attention_2", "flash_attention_3")
PAGES = (".html", ".htm", ".js", ".mjs", ".ts", ".jsx", ".tsx", ".svelte", ".vue")
FETCH = re.compile(r"(fetch\s*\(|EventSource\s*\(|XMLHttpRequest|axios)")


def check(space: Space) -> None:
    """Runs the rules of this file."""
    rules = (
        ("B601", secrets),
        ("B602", tokens),
        ("B313", hardware),
        ("C316", loads),
        ("C322", sleeps),
        ("C319", eager_examples),
        ("C504", without_visitor),
        ("C506", plain_fetch),
        ("C507", clients),
    )
    for rule, run in rules:
        space.facts.safely(rule, lambda run=run: run(space))  # type: ignore[misc]


def secrets(space: Space) -> None:
    """B601: a variable that must be there. B603: all variables that the Space reads."""
    found = variables(space)
    reported: Set[str] = set()
    for variable in found:
        if variable.required and variable.certain and variable.name not in reported:
            reported.add(variable.name)
            when = "at import" if variable.at_import else "in a call"
            outcome = "the Space does not start" if variable.at_import else "the call fails"
            space.facts.add("B601", variable.path, variable.line, name=variable.name, when=when, outcome=outcome)
    if found:
        places = {v.name: f"{v.name} ({v.path}:{v.line})" for v in reversed(found)}
        first = found[0]
        space.facts.add("B603", first.path, first.line, names=", ".join(places[name] for name in sorted(places)))


def tokens(space: Space) -> None:
    """B602: a text that looks like a token."""
    for path in space.project.files():
        if not path.endswith(TEXT_FILES) and not os.path.basename(path).startswith(".env"):
            continue
        full = os.path.join(space.project.root, path)
        try:
            if not os.path.isfile(full) or os.path.getsize(full) > MAX_TEXT:  # the open of a FIFO waits for a writer
                continue
            with open(full, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        for match in TOKEN.finditer(text):
            token = match.group(1)
            if _is_random(token) and not (token.startswith("hf_") and TEST_SERVER in text):
                space.facts.add("B602", path, text.count("\n", 0, match.start()) + 1, kind=_kind(token))


def _is_random(token: str) -> bool:
    """Reports whether a token is no placeholder: "hf_xxxxxxxx", "sk-your-key-here", "hf_abcdefghij..."."""
    body = re.sub(r"^(hf_|sk-(proj-|ant-api03-)?|ghp_|github_pat_|AKIA|AIza|xox[bp]-)", "", token)
    sequences = sum(ord(b) - ord(a) == 1 for a, b in zip(body, body[1:]))
    mixed = any(c.islower() for c in body) and any(c.isupper() for c in body) or body.isupper() and any(c.isdigit() for c in body)
    words = re.search(r"(?i)(your|token|example|placeholder|secret|xxxx|here|1234|abcd)", body)
    return len(set(body)) >= 10 and sequences < len(body) // 4 and mixed and words is None


def _kind(token: str) -> str:
    kinds = {
        "hf_": "a Hugging Face token",
        "sk-": "an API key (sk-...)",
        "ghp_": "a GitHub token",
        "github_pat_": "a GitHub token",
        "AKIA": "an AWS access key",
        "AIza": "a Google API key",
        "xox": "a Slack token",
    }
    return next(text for start, text in kinds.items() if token.startswith(start))


def hardware(space: Space) -> None:
    """B313: values that differ between ZeroGPU's GPUs, and between ZeroGPU and the CPU of a duplicate."""
    seen: Set[int] = set()
    device = False
    for event in space.at_import:
        node, line, path = event.node, line_of(event.node), event.scope.module.path
        name = space.library(node, event.scope)
        kernel = node.value if isinstance(node, ast.Constant) and node.value in KERNELS and _is_chosen(node, event.scope) else None
        if (name in DEVICE_FACTS or kernel) and line not in seen:
            seen.add(line)
            values = "a kernel for each GPU architecture" if kernel else "NVIDIA H200 or RTX PRO 6000 Blackwell on ZeroGPU, by month"
            space.facts.add("B313", path, line, what=f'attn_implementation="{kernel}"' if kernel else DEVICE_FACTS[name], values=values)
        if isinstance(node, ast.IfExp) and not device and _chooses_device(space, node, event.scope):
            device = True
            space.facts.add(
                "B313",
                path,
                line,
                what="the device",
                values='"cuda" on ZeroGPU, "cpu" on the free CPU hardware with which a duplicate starts',
            )


def _is_chosen(node: ast.Constant, scope: Scope) -> bool:
    """Reports whether a text is a value: no key of a table, no part of a comparison or a list."""
    above = scope.module.parents.get(node)
    if isinstance(above, ast.Dict):
        return any(value is node for value in above.values)
    return isinstance(above, (ast.keyword, ast.Assign, ast.AnnAssign, ast.IfExp))


def _chooses_device(space: Space, node: ast.IfExp, scope: Scope) -> bool:
    """Reports whether an expression is "cuda" if torch.cuda.is_available() else "cpu", in an app for ZeroGPU."""
    if space.order.spaces is None or space.library(node.test, scope) != "torch.cuda.is_available":
        return False
    return (space.folding.fold(node.body, scope), space.folding.fold(node.orelse, scope)) == ("cuda", "cpu")


def loads(space: Space) -> None:
    """C316: a GPU function loads or downloads a model. A cache that the import has filled is no load. The body of an own
    from_pretrained is part of its call."""
    filled = _filled_caches(space)
    for function, runs in space.inside().items():
        for run in runs:
            node = run.node
            if not isinstance(node, ast.Call) or any(f in filled or f.name in LOADERS for f in run.path):
                continue
            name = space.library(node, run.scope)
            last = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in LOAD_FUNCTIONS or last in LOADERS and not _is_light(name):
                space.facts.add(
                    "C316",
                    run.scope.module.path,
                    line_of(node),
                    function=space.name(run.path[-1]),
                    call=f"{last or name.rsplit('.', 1)[-1]}()",
                )


def _filled_caches(space: Space) -> Set[Function]:
    """Returns the functions and properties with a cache that the import certainly calls."""
    cached = {f for module in space.modules for f in module.functions if _is_cached(space, f)}
    names = {f.name for f in cached}
    found: Set[Function] = set()
    for event in space.at_import if cached else []:
        node = event.node.func if isinstance(event.node, ast.Call) else event.node
        if event.certain and (isinstance(node, ast.Name) or isinstance(node, ast.Attribute) and node.attr in names):
            is_call = node is not event.node
            found.update(f for f in space.names.functions(node, event.scope) if f in cached and (is_call or f.owner is not None))
    return found


def _is_cached(space: Space, function: Function) -> bool:
    found = [space.names.library(d.func if isinstance(d, ast.Call) else d, function.outer) for d in function.decorators]
    return any(name in ("functools.lru_cache", "functools.cache", "functools.cached_property") for name in found)


def _is_light(name: str) -> bool:
    """Reports whether from_pretrained loads a small object: tokenizers, processors, schedulers, configurations."""
    owner = name.split(".")[-2] if name.count(".") >= 1 else ""
    return any(word in owner for word in ("Tokenizer", "Processor", "Scheduler", "Config", "FeatureExtractor"))


def sleeps(space: Space) -> None:
    """C322: a GPU function sleeps while its visitor pays."""
    for function, runs in space.inside().items():
        for run in runs:
            if isinstance(run.node, ast.Call) and space.library(run.node, run.scope) == "time.sleep" and run.node.args:
                seconds = space.folding.fold(run.node.args[0], run.scope)
                long = isinstance(seconds, (int, float)) and seconds >= 1 and not _is_switch(space, run)
                text = f"{seconds:g} s" if isinstance(seconds, (int, float)) else "some time"
                space.facts.add(
                    "C322",
                    run.scope.module.path,
                    line_of(run.node),
                    "warning" if long else "info",
                    function=space.name(run.path[-1]),
                    seconds=text,
                )


def _is_switch(space: Space, run: Run) -> bool:
    """Reports whether the node runs below a test of an environment variable, such as one that replaces a model in tests."""
    above = run.scope.module.is_above(run.node, (ast.If,))
    while isinstance(above, ast.If):
        if any(space.names.library(node, run.scope) in ("os.environ", "os.getenv") for node in ast.walk(above.test)):
            return True
        above = run.scope.module.is_above(above, (ast.If,))
    return False


def _reaches_gpu(space: Space, function: Optional[Function]) -> bool:
    if function is None:
        return False
    if function in space.gpu:
        return True
    return any(_gpu_call(space, run) for run in space.reach.runs(function, False))


def _gpu_call(space: Space, run: Run) -> Optional[Function]:
    if not isinstance(run.node, ast.Call):
        return None
    return next((f for f in space.names.functions(run.node.func, run.scope) if f in space.gpu), None)


def eager_examples(space: Space) -> None:
    """C319: examples are computed at the start, each by a GPU call."""
    for endpoint in space.endpoints.all:
        if endpoint.kind not in ("interface", "chat", "examples") or "cache_mode" not in endpoint.keywords:
            continue
        scope = endpoint.module.scope_at(endpoint.node)
        mode = space.folding.fold(endpoint.keywords["cache_mode"], scope)
        cached = space.folding.fold(endpoint.keywords["cache_examples"], scope) if "cache_examples" in endpoint.keywords else True
        if mode == "eager" and cached is True and _reaches_gpu(space, endpoint.function):
            examples = space.folding.fold(
                endpoint.keywords.get("examples")
                or (endpoint.node.args[0] if endpoint.kind == "examples" and endpoint.node.args else None),
                scope,
            )
            number = f"{len(examples)} examples" if isinstance(examples, (list, tuple)) else "the examples"
            node = endpoint.keywords["cache_mode"]
            space.facts.add(
                "C319",
                endpoint.module.path,
                line_of(node),
                number=number,
                function=space.name(endpoint.function) if endpoint.function else "",
            )


def without_visitor(space: Space) -> None:
    """C504: a GPU function is called from a route, from a thread, or at import."""
    for endpoint in space.endpoints.all:
        if endpoint.kind != "route" or endpoint.function is None:
            continue
        if endpoint.function in space.gpu:
            space.facts.add(
                "C504", endpoint.module.path, endpoint.function.line, function=space.name(endpoint.function), where=f"the {endpoint.role()}"
            )
            continue
        for run in space.outside().get(endpoint.function, []):
            called = _gpu_call(space, run)
            if called is not None:
                space.facts.add(
                    "C504", run.scope.module.path, line_of(run.node), function=space.name(called), where=f"the {endpoint.role()}"
                )
    for event in space.at_import:
        if isinstance(event.node, ast.Call):
            direct = [
                f
                for f in space.names.functions(event.node.func, event.scope)
                if f in space.gpu and not isinstance(event.node.func, ast.Call)
            ]
            if direct and space.gpu.decoration(event.node.func, event.scope) is None:
                space.facts.add(
                    "C504", event.scope.module.path, line_of(event.node), function=space.name(direct[0]), where="the import of the app"
                )
    _threads(space)


def _threads(space: Space) -> None:
    """Reports GPU functions that a thread calls which the import starts."""
    for event in space.at_import:
        if not isinstance(event.node, ast.Call) or space.library(event.node, event.scope) not in ("threading.Thread", "threading.Timer"):
            continue
        target = keyword(event.node, "target") or keyword(event.node, "function")
        for function in space.names.functions(target, event.scope) if target is not None else []:
            if function in space.gpu:
                space.facts.add(
                    "C504",
                    event.scope.module.path,
                    line_of(event.node),
                    function=space.name(function),
                    where="a thread that the import starts",
                )
                continue
            for run in space.reach.runs(function, False):
                called = _gpu_call(space, run)
                if called is not None:
                    space.facts.add(
                        "C504",
                        run.scope.module.path,
                        line_of(run.node),
                        function=space.name(called),
                        where="a thread that the import starts",
                    )


def plain_fetch(space: Space) -> None:
    """C506: a front end of the Space's own calls the API without @gradio/client."""
    places: List[Tuple[str, int]] = []
    client = False
    for module in space.modules:
        for node in module.nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 20:
                client = client or "@gradio/client" in node.value
                offset = _fetches_api(node.value)
                if offset >= 0:
                    places.append((module.path, node.lineno + node.value.count("\n", 0, offset)))
    for path in space.project.files():
        if path.endswith(PAGES):
            text, _ = read_text(os.path.join(space.project.root, path))
            client = client or "@gradio/client" in (text or "")
            offset = _fetches_api(text or "")
            if offset >= 0:
                places.append((path, (text or "").count("\n", 0, offset) + 1))
    if not client:
        for path, line in places:
            space.facts.add("C506", path, line)


def _fetches_api(text: str) -> int:
    """Returns where a text calls Gradio's API by fetch or EventSource, or -1."""
    for match in FETCH.finditer(text):
        line = text[match.start() : match.end() + 200]
        at = re.search(r"[\"'`/](gradio_api/(call|run|queue)|run/predict|queue/join|api/predict)", line)
        if at is not None:
            return match.start()
    return -1


def clients(space: Space) -> None:
    """C507: a call of another Space that does not pass on the visitor's token."""
    for event in space.at_import:
        _client(space, event.node, event.scope, "at import")
    for runs in [*space.outside().values(), *space.inside().values()]:
        for run in runs:
            _client(space, run.node, run.scope, "in a call")


def _client(space: Space, node: ast.AST, scope: Scope, when: str) -> None:
    if not isinstance(node, ast.Call) or space.library(node, scope) not in ("gradio_client.Client", "gradio_client.client.Client"):
        return
    if keyword(node, "headers") is not None or any(k.arg is None for k in node.keywords):
        return
    source = space.folding.fold(node.args[0] if node.args else keyword(node, "src"), scope)
    if isinstance(source, str) and re.match(r"https?://(localhost|127\.|0\.0\.0\.0|\[::1\])", source):
        return
    name = f'"{source}"' if source is not UNKNOWN and isinstance(source, str) else "another Space"
    space.facts.add("C507", scope.module.path, line_of(node), source=name, when=when)
