"""Tests when the queue adapter polls for progress, and which middleware the host may bypass."""
from __future__ import annotations

import asyncio
import sys
import unittest
from types import ModuleType
from typing import Any

from spacehost_runner.queue_adapter import QueueAdapter, _is_transparent


class Queue:
    """A fake gradio.queueing.Queue with events for the start and the end of its polling."""

    def __init__(self) -> None:
        self.stopped = False
        self.polling, self.stopped_polling = asyncio.Event(), asyncio.Event()

    async def start_progress_updates(self) -> None:
        self.polling.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.polling.clear()
            self.stopped_polling.set()


class Progress(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.adapter = QueueAdapter.__new__(QueueAdapter)
        self.adapter.queue, self.adapter.tasks, self.adapter.busy = Queue(), {}, asyncio.Event()  # type: ignore[assignment]
        self.task = asyncio.ensure_future(self.adapter.poll_progress())
        self.addCleanup(self.task.cancel)

    def start(self) -> None:
        self.adapter.tasks["event"] = self.task  # any task
        self.adapter.busy.set()

    async def reach(self, event: asyncio.Event) -> Any:
        return await asyncio.wait_for(event.wait(), 30)

    async def test_is_polled_while_there_are_tasks(self) -> None:
        queue: Any = self.adapter.queue
        for _ in range(10):
            await asyncio.sleep(0)
        self.assertFalse(queue.polling.is_set())
        for _ in range(2):
            self.start()
            await self.reach(queue.polling)
            self.assertFalse(queue.stopped_polling.is_set())
            self.adapter.tasks.clear()
            await self.reach(queue.stopped_polling)
            queue.stopped_polling.clear()

    async def test_continues_for_a_new_task(self) -> None:
        queue: Any = self.adapter.queue
        self.start()
        await self.reach(queue.polling)
        self.adapter.busy.clear()
        self.adapter.tasks.clear()
        self.start()  # another, within the second
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.stopped_polling.wait(), 1.5)

    async def test_ends_with_its_task(self) -> None:
        queue: Any = self.adapter.queue
        self.start()
        await self.reach(queue.polling)
        self.task.cancel()
        await self.reach(queue.stopped_polling)


class Middleware(unittest.TestCase):
    def test_only_that_of_gradio_and_the_very_class_of_spaces_is_transparent(self) -> None:
        module = ModuleType("spaces.zero.middleware")
        own = type("ZeroGPUMiddleware", (), {"__module__": "spaces.zero.middleware"})
        gradios = type("CustomCORSMiddleware", (), {"__module__": "gradio.route_utils"})
        self.assertFalse(_is_transparent(own), "spaces has no middleware module")
        module.ZeroGPUMiddleware = own  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        self.addCleanup(sys.modules.pop, module.__name__)
        sub = type("Sub", (own,), {"__module__": "__main__"})
        imitation = type("ZeroGPUMiddleware", (), {"__module__": "spaces.zero.middleware"})
        found = [_is_transparent(cls) for cls in (own, gradios, sub, imitation, None)]
        self.assertEqual(found, [True, True, False, False, False])


if __name__ == "__main__":
    unittest.main()
