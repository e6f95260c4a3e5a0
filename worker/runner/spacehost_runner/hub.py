"""Lets parts of Gradio that name the Hub's address honour HF_ENDPOINT."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import State


class HubClient:
    """The httpx of gradio.external. Requests for the Hub go to HF_ENDPOINT."""

    def __init__(self, original: Any, endpoint: str) -> None:
        self._original, self._endpoint = original, endpoint.rstrip("/") + "/"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def get(self, url: str, **options: Any) -> Any:
        return self._original.get(url.replace("https://huggingface.co/", self._endpoint, 1), **options)


def patch_external(state: State, module: Any) -> None:
    """Lets gr.load(..., src="spaces") ask the host under --by-name.

    gradio/external.py, from_spaces, has the Hub's address as text; everything else there honours HF_ENDPOINT.
    """
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint and hasattr(module, "httpx"):
        module.httpx = HubClient(module.httpx, endpoint)
