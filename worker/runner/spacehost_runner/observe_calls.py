"""Lists the calls of `spacehost check --call`, and evaluates duration functions at the extremes of their inputs.

The list names each endpoint with one value per input. Values come from gr.Examples first, then from the component's own
value, then from Gradio's example of the component. Files are made here: Gradio's example of a file is a URL.
"""
from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .observe import Observer, Task

MAX_TEXT = 400  # characters of one value
MAX_LIST = 1 << 20  # bytes
MAX_ENDPOINTS = 200
EVALUATION = 5.0  # seconds for all duration functions together
PICTURES = {"a square picture": (1024, 1024), "a wide picture": (1280, 720), "a tall picture": (720, 1280)}


def send_list(observer: Observer, blocks: Any, path: str) -> None:
    """Sends the list. It runs in a thread of its own."""
    made: dict[str, Any] = {"path": path, "endpoints": [], "durations": [], "skipped": []}
    try:
        for number, fn in list(blocks.fns.items())[:MAX_ENDPOINTS]:
            with contextlib.suppress(Exception):
                _endpoint(observer, made, number, fn)
        _durations(observer, made, blocks)
    finally:
        payload = json.dumps(made, default=text).encode()
        if len(payload) > MAX_LIST:
            payload = json.dumps({"path": path, "endpoints": [], "durations": made["durations"], "skipped": [{"name": "", "reason": "the inputs are too large"}]}).encode()
        observer.state.send({"op": "calls"}, payload)


def _endpoint(observer: Observer, made: dict[str, Any], number: int, fn: Any) -> None:
    import inspect

    function = inspect.unwrap(fn.fn) if callable(fn.fn) else None
    if function is None:
        return
    name = fn.api_name if isinstance(fn.api_name, str) else ""
    visibility = getattr(fn, "api_visibility", "public" if getattr(fn, "show_api", True) else "undocumented")  # gradio 4 and 5: show_api
    if not name or visibility != "public":
        if str(getattr(function, "__module__", "")).partition(".")[0] != "gradio":  # else a part of a component, such as of gr.Examples
            reason = "it has no name that a client could call" if not name or visibility == "private" else "its API is not documented"
            made["skipped"].append({"name": text(getattr(function, "__name__", "?")), "reason": reason})
        return
    if takes_event(function):
        made["skipped"].append({"name": name, "reason": "it needs the data of an event, which only a browser sends"})
        return
    if getattr(fn, "connection", "sse") == "stream":
        made["skipped"].append({"name": name, "reason": "it needs the stream of a browser's camera or microphone"})
        return
    data, sources = [], set()
    for block in fn.inputs:
        value, source = value_of(observer, fn, block)
        if source == "":
            kind = type(block).__name__
            made["skipped"].append({"name": name, "reason": f"no value is known for its input {text(getattr(block, 'label', None) or kind)} ({kind})"})
            return
        data.append(value)
        sources.add(source)
    json.dumps(data)  # raises for a value that no client could send
    code = getattr(function, "__code__", None)
    place = (observer.own(code.co_filename), code.co_firstlineno) if code is not None else ("", 0)
    made["endpoints"].append({
        "id": number, "name": name, "data": data, "given": "made up" not in sources, "file": place[0], "line": place[1] if place[0] else 0,
    })


def takes_event(function: Any) -> bool:
    """Reports whether Gradio passes a gr.EventData to function (gradio/helpers.py, special_args)."""
    EventData = getattr(sys.modules.get("gradio.events"), "EventData", None)
    hints: Any = getattr(function, "__annotations__", {})
    with contextlib.suppress(Exception):
        import typing

        hints = typing.get_type_hints(function)
    return EventData is not None and any(isinstance(hint, type) and issubclass(hint, EventData) for hint in hints.values())


def text(value: Any) -> str:
    with contextlib.suppress(Exception):
        return str(value)[:MAX_TEXT]
    return "?"


# Values


def value_of(observer: Observer, fn: Any, block: Any) -> tuple[Any, str]:
    """Returns a value as a browser would send it, and its source: example, value, made up; "" without a value."""
    if type(block).__name__ == "State":
        return None, "value"  # Gradio inserts the value of the session
    for examples in observer.examples:
        with contextlib.suppress(Exception):
            found, value = example_of(examples, block)
            if found:
                return value, "example"
    with contextlib.suppress(Exception):
        value = block.get_config().get("value")
        value = value() if callable(value) else value
        json.dumps(value)
        if value not in (None, "", [], {}):
            return value, "value"
    with contextlib.suppress(Exception):
        known, value = file_of(block)
        if known:
            return value, "made up"
    with contextlib.suppress(Exception):
        value = block.example_payload() if hasattr(block, "example_payload") else block.example_inputs()
        value = value.model_dump() if hasattr(value, "model_dump") else value
        if "http" not in json.dumps(value):
            return value, "made up"
    return None, ""


def example_of(examples: Any, block: Any) -> tuple[bool, Any]:
    """Returns the value of the first example for block, as its click would set it."""
    inputs = getattr(examples, "inputs_with_examples", None) or examples.inputs
    if not any(one is block for one in inputs):
        return False, None
    position = next(i for i, one in enumerate(inputs) if one is block)
    sample = (getattr(examples, "non_none_examples", None) or examples.examples)[0]
    processed = examples._get_processed_example(sample) if hasattr(examples, "_get_processed_example") else examples.processed_examples[0]
    value = processed[position]
    json.dumps(value)
    return True, value


def uploads() -> str:
    return str(sys.modules["gradio.utils"].get_upload_folder())


def file_data(name: str, content: bytes, kind: str) -> dict[str, Any]:
    """Writes a file to Gradio's folder of uploads, and returns what a client would send after its upload."""
    import hashlib

    folder = os.path.join(uploads(), hashlib.sha256(content).hexdigest())
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(content)
    return {"path": path, "orig_name": name, "size": len(content), "mime_type": kind, "meta": {"_type": "gradio.FileData"}}


def picture(width: int, height: int) -> dict[str, Any]:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return file_data(f"check-{width}x{height}.png", out.getvalue(), "image/png")


def sound() -> dict[str, Any]:
    import io
    import wave

    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\x00\x00\x00\x10" * 8000)
    return file_data("check.wav", out.getvalue(), "audio/wav")


def video() -> dict[str, Any]:
    folder = os.path.join(os.path.dirname(sys.modules["gradio"].__file__ or ""), "media_assets", "videos")
    with open(os.path.join(folder, "a.mp4"), "rb") as file:  # since gradio 6; without it there is no value
        return file_data("check.mp4", file.read(), "video/mp4")


def file_of(block: Any) -> tuple[bool, Any]:
    """Returns whether block takes files, and a value for it."""
    match type(block).__name__:
        case "Image":
            return True, picture(640, 480)
        case "ImageEditor" | "ImageMask" | "Sketchpad":
            one = picture(640, 480)
            return True, {"background": one, "layers": [], "composite": one}
        case "Gallery":
            return True, [{"image": picture(640, 480), "caption": None}]
        case "Audio" | "Microphone":
            return True, sound()
        case "Video" | "PlayableVideo":
            one = video()
            return True, one if not hasattr(sys.modules.get("gradio.data_classes"), "VideoData") else {"video": one, "subtitles": None}
        case "MultimodalTextbox":
            return True, {"text": "Hello", "files": []}
        case "File" | "UploadButton":
            one = of_types(getattr(block, "file_types", None) or [])
            return True, [one] if getattr(block, "file_count", "single") != "single" else one
    return False, None


def of_types(types: list[str]) -> dict[str, Any]:
    wanted = " ".join(types)
    if any(word in wanted for word in ("image", ".png", ".jpg")):
        return picture(640, 480)
    if any(word in wanted for word in ("audio", ".wav", ".mp3")):
        return sound()
    if any(word in wanted for word in ("video", ".mp4")):
        return video()
    return file_data("check" + next((t for t in types if t.startswith(".")), ".txt"), b"Hello\n", "text/plain")


# Duration functions


def _durations(observer: Observer, made: dict[str, Any], blocks: Any) -> None:
    """Evaluates the duration function of each GPU function that is an endpoint, or that one calls with its own inputs."""
    until, reached = time.monotonic() + EVALUATION, set()
    for fn in blocks.fns.values():
        task = next((task for task in observer.tasks.values() if callable(task.duration) and is_wrapper(fn.fn, task.function)), None)
        if task is None:
            continue
        reached.add(id(task))
        with contextlib.suppress(Exception):
            found = extremes(observer, functools.partial(evaluate, task, fn), fn, until)
            if found is not None:
                made["durations"].append({**found, "function": task.name, "size": task.size, "file": task.place()[0], "line": task.place()[1]})
    for task in observer.tasks.values():
        if callable(task.duration) and id(task) not in reached:
            found = of_helper(observer, task, blocks, until)
            if found is not None:
                made["durations"].append({**found, "function": task.name, "size": task.size, "file": task.place()[0], "line": task.place()[1]})
            else:
                made["skipped"].append({"name": task.name, "reason": "its duration function gets values that no component gives"})


def of_helper(observer: Observer, task: Task, blocks: Any, until: float) -> dict[str, Any] | None:
    """Returns the longest duration of a GPU function that a handler of the app calls, None without one.

    The duration function is evaluated if its parameters have the names of the handler's inputs. The handler may change a value
    before it passes it on, so the result is a remark, and an exception is none.
    """
    import inspect

    with contextlib.suppress(Exception):
        wanted = inspect.signature(task.duration).parameters.values()
        if any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in wanted):
            return None
        for fn in blocks.fns.values():
            handler = inspect.unwrap(fn.fn) if callable(fn.fn) else None
            if task.name not in getattr(getattr(handler, "__code__", None), "co_names", ()):
                continue
            positions = {name: i for i, name in enumerate(inspect.signature(handler).parameters) if i < len(fn.inputs)}
            if all(p.name in positions or p.default is not p.empty for p in wanted) and any(p.name in positions for p in wanted):
                used = {p.name: positions[p.name] for p in wanted if p.name in positions}
                found = extremes(observer, functools.partial(pass_on, task, fn, used), fn, until, set(used.values()))
                return found and {**found, "handler": text(getattr(handler, "__name__", "?"))}
    return None


def pass_on(task: Task, fn: Any, used: dict[str, int], data: list[Any]) -> float | None:
    """Returns the seconds that a duration function declares for the inputs of a handler, by their names."""
    with contextlib.suppress(Exception):
        return seconds_of(task.duration(**{name: preprocessed(fn.inputs[i], data[i]) for name, i in used.items()}))
    return None


def is_wrapper(function: Any, wanted: Any) -> bool:
    """Reports whether function is wanted, or wraps it (functools.wraps)."""
    for _ in range(20):
        if function is wanted:
            return True
        function = getattr(function, "__wrapped__", None)
        if function is None:
            return False
    return False


def extremes(observer: Observer, declare: Callable[[list[Any]], float | None], fn: Any, until: float, varied: set[int] | None = None) -> dict[str, Any] | None:
    """Returns the longest duration in seconds, and the inputs of it that are not usual. varied are the inputs to vary; None: all."""
    usual = [value_of(observer, fn, block)[0] for block in fn.inputs]
    choices = [list(variants(block)) if varied is None or i in varied else [] for i, block in enumerate(fn.inputs)]
    result: dict[str, Any] = {}
    for named in combinations(choices):
        if time.monotonic() > until:
            break
        data = list(usual)
        for position, (_, value) in named.items():
            data[position] = value
        seconds = declare(data)
        if seconds is not None and seconds > result.get("longest", -1):
            result = {"longest": seconds, "inputs": {label_of(fn, position): word for position, (word, _) in named.items()}}
    return result or None


def combinations(choices: list[list[tuple[str, Any]]]) -> Iterator[dict[int, tuple[str, Any]]]:
    """Yields the values to try: none, each extreme alone, then extremes of all inputs together, a bounded number."""
    import itertools

    yield {}
    for position, found in enumerate(choices):
        for one in found:
            yield {position: one}
    with_extremes = [position for position, found in enumerate(choices) if found]
    for together in itertools.islice(itertools.product(*(choices[p] for p in with_extremes)), 512):
        yield dict(zip(with_extremes, together, strict=True))


def variants(block: Any) -> Iterator[tuple[str, Any]]:
    """Yields the extremes of a component, each with a word for it."""
    kind = type(block).__name__
    if kind in ("Slider", "Number"):
        for bound in (getattr(block, "maximum", None), getattr(block, "minimum", None)):
            if bound is not None:
                yield f"{bound:g}", bound
    elif kind in ("Radio", "Dropdown"):
        for choice in (getattr(block, "choices", None) or [])[:16]:
            value = choice[1] if isinstance(choice, (list, tuple)) and len(choice) == 2 else choice
            yield text(value), value
    elif kind == "Checkbox":
        yield "True", True
        yield "False", False
    elif kind == "Image":
        for words, (width, height) in PICTURES.items():
            yield words, picture(width, height)


def label_of(fn: Any, position: int) -> str:
    import inspect

    with contextlib.suppress(Exception):
        names = list(inspect.signature(inspect.unwrap(fn.fn)).parameters)
        return names[position]
    return f"input {position + 1}"


def evaluate(task: Task, fn: Any, data: list[Any]) -> float | None:
    """Returns the seconds that the duration function declares for data; None if it declares no number."""
    helpers = sys.modules["gradio.helpers"]
    args = [preprocessed(block, value) for block, value in zip(fn.inputs, data, strict=True)]
    with contextlib.suppress(Exception):
        args = helpers.special_args(task.function, args, None, None)[0]
    try:
        declared = task.duration(*args)
    except Exception as error:
        task.observer.report("H801", task.place(), function=task.name, exception=type(error).__name__, message=str(error))
        return None
    return seconds_of(declared)


def seconds_of(declared: Any) -> float | None:
    seconds = declared.total_seconds() if hasattr(declared, "total_seconds") else declared
    return float(seconds) if isinstance(seconds, (int, float)) else None


def preprocessed(block: Any, value: Any) -> Any:
    """Returns what Gradio passes to the function (gradio/blocks.py, preprocess_data)."""
    model = getattr(block, "data_model", None)
    if model is not None and value is not None:
        value = model(**value) if isinstance(value, dict) and not hasattr(model, "root") else model(root=value) if "root" in getattr(model, "model_fields", {}) else model(**value)
    return block.preprocess(value)
