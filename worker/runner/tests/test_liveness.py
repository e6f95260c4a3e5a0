from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import unittest

from spacehost_runner import liveness
from spacehost_runner.frames import Channel, encode


class LivenessTest(unittest.TestCase):
    def setUp(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        self.host, self.sockets = Channel(ours.fileno()), (ours, theirs)
        self.live = liveness.Liveness(Channel(theirs.fileno()))

    def test_without_a_server(self) -> None:
        self.live.probe(1)
        self.assertEqual(self.host.receive()[0], {"op": "alive", "number": 1, "server": "none", "thread": "0" * 16})

    def test_a_blocked_loop_answers_once_afterwards(self) -> None:
        blocked, release, stop = threading.Event(), threading.Event(), threading.Event()

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            self.live.attached(loop)
            loop.call_soon(lambda: (blocked.set(), release.wait()))
            while not stop.is_set():
                await asyncio.sleep(0.01)

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        blocked.wait()
        for number in (1, 2, 3):
            self.live.probe(number)
            self.assertEqual(self.host.receive()[0], {"op": "alive", "number": number, "server": "runs", "thread": f"{thread.ident:016x}"})
        release.set()
        self.assertEqual(self.host.receive()[0], {"op": "alive", "number": 3, "loop": True})
        self.live.probe(4)
        self.assertEqual([self.host.receive()[0] for _ in range(2)][1], {"op": "alive", "number": 4, "loop": True})
        stop.set()
        thread.join()
        self.live.probe(5)
        self.assertEqual(self.host.receive()[0]["server"], "ended")
        self.live.detached(self.live.loop)
        self.live.probe(6)
        self.assertEqual(self.host.receive()[0]["server"], "none")

    def test_the_descriptor_arrives_with_the_first_frame(self) -> None:
        memory = os.memfd_create("memory")
        self.addCleanup(os.close, memory)
        frame = b"".join(encode({"op": "config"}, b"x"))
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
        self.sockets[0].sendmsg([frame + frame[:3]], beside)
        received = self.live.channel.accept()
        self.addCleanup(os.close, received)
        self.assertEqual(os.fstat(received).st_ino, os.fstat(memory).st_ino)
        self.assertFalse(os.get_inheritable(received))
        self.assertEqual(self.live.channel.receive(), ({"op": "config"}, b"x"))
        self.sockets[0].sendall(frame[3:])
        self.assertEqual(self.live.channel.receive(), ({"op": "config"}, b"x"))

    def test_no_descriptor(self) -> None:
        self.sockets[0].sendall(b"".join(encode({"op": "config"})))
        self.assertEqual(self.live.channel.accept(), -1)
        self.assertEqual(self.live.channel.receive()[0], {"op": "config"})
        self.sockets[0].shutdown(socket.SHUT_WR)
        with self.assertRaises(EOFError):
            self.live.channel.accept()

    def test_stacks(self) -> None:
        """A signal, a request and a closed descriptor table each leave the line of the app in the memory."""
        code = f"""
import os, signal, sys
from spacehost_runner import liveness
from spacehost_runner.frames import Channel
live = liveness.Liveness(Channel(0))
live.install(int(sys.argv[1]), {signal.SIGRTMIN + 17})
def hangs(): os.kill(os.getpid(), {signal.SIGRTMIN + 17})
def asked(): live.write_stacks()
def closes():
    os.closerange(0, 4096)
    live.closed()
hangs(); asked(); closes()
"""
        memory = os.memfd_create("memory")
        self.addCleanup(os.close, memory)
        os.ftruncate(memory, liveness.SIZE)
        subprocess.run([sys.executable, "-c", code, str(memory)], pass_fds=[memory], stdin=subprocess.DEVNULL, check=True)
        text = os.pread(memory, liveness.CLOSED_AT, 0)
        self.assertIn(b" in hangs\n", text)
        self.assertIn(b" in asked\n", text)
        self.assertIn(b" in closes\n", os.pread(memory, liveness.CLOSED_AT, liveness.CLOSED_AT))

    def test_descriptors_are_out_of_reach(self) -> None:
        moved = liveness.out_of_reach(os.open(os.devnull, os.O_RDONLY))
        self.addCleanup(os.close, moved)
        self.assertGreaterEqual(moved, liveness.HIGH[-1])
        self.assertFalse(os.get_inheritable(moved))


if __name__ == "__main__":
    unittest.main()
