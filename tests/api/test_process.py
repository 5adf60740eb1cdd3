"""What an HTTP process adds to its server."""

from __future__ import annotations

import asyncio

from rankward.api.process import _Gathering


class Wire(asyncio.Transport):
    """Notes what reaches the network, in the packets that it comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Note a packet."""
        self.packets.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """So much is on its way."""
        return 5

    def close(self) -> None:
        """Hang up."""
        self.closed = True

    abort = close


def test_what_is_written_in_one_turn_is_sent_at_once() -> None:
    """A head and a body that come as two packets wake the client twice, and take two system calls."""

    async def answer_twice() -> list[bytes]:
        wire = Wire()
        transport = _Gathering(wire)
        for body in (b"one", b"two"):
            transport.write(b"head ")
            transport.write(body)
            assert transport.get_write_buffer_size() == 13
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return wire.packets

    assert asyncio.run(answer_twice()) == [b"head one", b"head two"]


def test_what_was_written_is_sent_before_closing_but_not_before_aborting() -> None:
    """A server that is told to stop closes right after its last answer."""

    async def leave(how: str) -> Wire:
        wire = Wire()
        transport = _Gathering(wire)
        transport.write(b"last")
        getattr(transport, how)()
        await asyncio.sleep(0)
        assert wire.closed
        return wire

    assert asyncio.run(leave("close")).packets == [b"last"]
    assert asyncio.run(leave("abort")).packets == []
