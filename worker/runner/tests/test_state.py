from __future__ import annotations

import socket
import unittest
import unittest.mock

from spacehost_runner.state import State


def listener(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


class PortTest(unittest.TestCase):
    def state(self, port: int) -> State:
        return State(channel=None, port=port, key=b"", public_url="", device_port=0, simulated=False)  # type: ignore[arg-type]

    def test_port_taken_by_another_process(self) -> None:
        """The first app is not a further demo, even if another process has taken the port since the host chose it."""
        with listener() as foreign:
            taken = foreign.getsockname()[1]
            state = self.state(taken)
            first = state.take_port()
            self.assertNotEqual(first, taken)
            self.assertFalse(state.is_further(first))
            with listener(first):
                second = state.take_port()
                self.assertNotIn(second, (first, taken))
                self.assertTrue(state.is_further(second))
                self.assertFalse(state.is_further(first))

    def test_second_demo_is_further(self) -> None:
        with listener() as probe:
            preferred = probe.getsockname()[1]
        state = self.state(preferred)
        self.assertEqual(state.take_port(), preferred)
        self.assertFalse(state.is_further(preferred))
        with listener(preferred):
            self.assertTrue(state.is_further(state.take_port()))
        self.assertEqual(state.take_port(), preferred)  # after close(), the next launch gets the port again

    def test_private_port(self) -> None:
        """An app that requested a port which visitors never reach leaves the preferred port to the next launch."""
        with listener() as probe:
            preferred = probe.getsockname()[1]
        state = self.state(preferred)
        self.assertNotEqual(state.take_port(public=False), preferred)
        self.assertEqual(state.preferred_port, preferred)

    def test_private_port_is_offered_the_preferred_one(self) -> None:
        state = self.state(40001)
        with unittest.mock.patch("spacehost_runner.state._free_port", side_effect=[40001, 40001, 40002]):
            self.assertEqual(state.take_port(public=False), 40002)


if __name__ == "__main__":
    unittest.main()
