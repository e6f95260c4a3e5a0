"""Tests that a refusal of a simulated GPU reaches the visitor, with the results of two releases of spaces."""
from __future__ import annotations

import sys
import unittest
from types import ModuleType, SimpleNamespace
from typing import Any

from spacehost_runner.fake_cuda_messages import TITLE, _show_refusals, refusal

REFUSAL = refusal("a CUDA graph needs an NVIDIA GPU")


def make_error(title: str, message: str) -> SimpleNamespace:
    return SimpleNamespace(title=title, message=message)


class Refusals(unittest.TestCase):
    def result_of(self, raised: Exception, result: SimpleNamespace, **more: Any) -> SimpleNamespace:
        wrappers = ModuleType("wrappers")
        wrappers.__dict__.update(more, exception_result=lambda error: result)
        _show_refusals(wrappers)
        return wrappers.exception_result(raised)

    def test_of_spaces_0_51(self) -> None:
        result = self.result_of(REFUSAL, SimpleNamespace(error_cls="NotImplementedError", gradio_error=None), error=make_error)
        self.assertEqual((result.gradio_error.title, result.gradio_error.message), (TITLE, str(REFUSAL)))

    def test_of_spaces_0_52(self) -> None:
        result = self.result_of(REFUSAL, SimpleNamespace(error_cls="NotImplementedError", exception=REFUSAL))
        self.assertEqual((result.error_cls, result.exception), (str(REFUSAL), REFUSAL), "without Gradio a plain route shows error_cls")
        gradio = ModuleType("spaces.zero.gradio")
        gradio.error = make_error  # type: ignore[attr-defined]
        sys.modules[gradio.__name__] = gradio
        self.addCleanup(sys.modules.pop, gradio.__name__)
        result = self.result_of(REFUSAL, SimpleNamespace(error_cls="NotImplementedError", exception=REFUSAL))
        self.assertEqual((result.exception.title, result.exception.message), (TITLE, str(REFUSAL)))

    def test_other_errors_keep_their_class(self) -> None:
        error = ValueError("as requested")
        result = self.result_of(error, SimpleNamespace(error_cls="ValueError", exception=error))
        self.assertEqual((result.error_cls, result.exception), ("ValueError", error))


if __name__ == "__main__":
    unittest.main()
