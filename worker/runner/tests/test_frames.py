"""Tests the frames of worker/testdata/frames, which worker/frame_test.go reads, too."""
from __future__ import annotations

import json
import random
import socket
import threading
import unittest
from pathlib import Path
from typing import Any

from spacehost_runner.frames import HEADER_LIMIT, PAYLOAD_LIMIT, Channel, encode

FRAMES = Path(__file__).parents[2] / "testdata" / "frames"
INDEX: dict[str, Any] = json.loads((FRAMES / "index.json").read_text(encoding="utf-8"))
WORDS = {"limit": "above the limit", "header": ""}


def encoded(header: dict[str, Any], payload: bytes = b"") -> bytes:
    return b"".join(encode(header, payload))


def received(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns what a Channel receives when the peer sends data and closes."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with ours:
            ours.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    with theirs:
        try:
            return Channel(theirs.fileno()).receive()
        finally:
            sender.join()


class Frames(unittest.TestCase):
    def test_good(self) -> None:
        for good in INDEX["good"]:
            with self.subTest(good["file"]):
                header, payload = received((FRAMES / good["file"]).read_bytes())
                self.assertEqual(header, good["header"])
                self.assertEqual(payload.hex(), good["payload_hex"])
                self.assertEqual(received(encoded(header, payload)), (header, payload))

    def test_bad(self) -> None:
        for bad in INDEX["bad"]:
            with self.subTest(bad["file"], why=bad["why"]):
                data = (FRAMES / bad["file"]).read_bytes()
                if bad["error"] in ("end", "truncated"):
                    with self.assertRaises(EOFError):
                        received(data)
                else:
                    with self.assertRaisesRegex(ValueError, WORDS[bad["error"]]):
                        received(data)

    def test_broken(self) -> None:
        """Good frames with wrong, missing or extra bytes give either a frame or an EOFError or ValueError."""
        rng = random.Random(5)
        good = [(FRAMES / good["file"]).read_bytes() for good in INDEX["good"]]
        for number in range(300):
            data = bytearray(rng.choice([frame for frame in good if len(frame) < 5_000]))
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(data)) if data else 0
                data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 3))
            with self.subTest(number=number, data=bytes(data)):
                try:
                    header, payload = received(bytes(data))
                except (EOFError, ValueError):
                    continue
                self.assertIsInstance(header, dict)
                self.assertLessEqual(8 + len(payload), len(data))

    def test_limits(self) -> None:
        """A frame exactly at the limits passes, and larger ones are not sent."""
        name = "x" * (HEADER_LIMIT - len('{"a":""}'))
        header, payload = received(encoded({"a": name}, bytes(PAYLOAD_LIMIT)))
        self.assertEqual((len(header["a"]), len(payload)), (len(name), PAYLOAD_LIMIT))
        for header, payload in (({"a": name + "x"}, b""), ({}, bytes(PAYLOAD_LIMIT + 1))):
            with self.assertRaisesRegex(ValueError, "above the limit"):
                encode(header, payload)

    def test_what_go_cannot_read_is_not_sent(self) -> None:
        for number in (float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                encode({"average": number})

    def test_threads_do_not_mix_their_frames(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        sender, receiver = Channel(ours.fileno()), Channel(theirs.fileno())

        def send(letter: str) -> None:
            for number in range(50):
                sender.send({"op": letter, "n": number}, letter.encode() * 30_000)

        senders = [threading.Thread(target=send, args=(letter,)) for letter in "abcd"]
        for thread in senders:
            thread.start()
        numbers: dict[str, list[int]] = {}
        for _ in range(200):
            header, payload = receiver.receive()
            self.assertEqual(payload, header["op"].encode() * 30_000)
            numbers.setdefault(header["op"], []).append(header["n"])
        for thread in senders:
            thread.join()
        self.assertEqual(numbers, {letter: list(range(50)) for letter in "abcd"})


if __name__ == "__main__":
    unittest.main()
