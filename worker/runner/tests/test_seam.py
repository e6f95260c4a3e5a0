"""python -m unittest discover -s tests -t ."""
from __future__ import annotations

import asyncio
import unittest
from typing import Any

from spacehost_runner.seam import Seam


class Queue:
    """gradio.queueing.Queue, which says when it looks for progress."""

    def __init__(self) -> None:
        self.stopped = False
        self.looking, self.gone = asyncio.Event(), asyncio.Event()

    async def start_progress_updates(self) -> None:
        self.looking.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.looking.clear()
            self.gone.set()


class Progress(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.seam = Seam.__new__(Seam)
        self.seam.queue, self.seam.tasks, self.seam.busy = Queue(), {}, asyncio.Event()  # type: ignore[assignment]
        self.task = asyncio.ensure_future(self.seam.look_for_progress())
        self.addCleanup(self.task.cancel)

    def start(self) -> None:
        self.seam.tasks["event"] = self.task  # any task
        self.seam.busy.set()

    async def reach(self, event: asyncio.Event) -> Any:
        return await asyncio.wait_for(event.wait(), 30)

    async def test_is_looked_for_while_there_are_tasks(self) -> None:
        queue: Any = self.seam.queue
        for _ in range(10):
            await asyncio.sleep(0)
        self.assertFalse(queue.looking.is_set())
        for _ in range(2):
            self.start()
            await self.reach(queue.looking)
            self.assertFalse(queue.gone.is_set())
            self.seam.tasks.clear()
            await self.reach(queue.gone)
            queue.gone.clear()

    async def test_goes_on_for_a_task_that_takes_long(self) -> None:
        queue: Any = self.seam.queue
        self.start()
        await self.reach(queue.looking)
        self.seam.busy.clear()
        self.seam.tasks.clear()
        self.start()  # another, before the second is over
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.gone.wait(), 1.5)

    async def test_ends_with_its_task(self) -> None:
        queue: Any = self.seam.queue
        self.start()
        await self.reach(queue.looking)
        self.task.cancel()
        await self.reach(queue.gone)


if __name__ == "__main__":
    unittest.main()
