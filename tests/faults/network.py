"""Hosts with addresses of their own on this machine, whose lines can be cut. Needs root, and Linux."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator

_NOBODY = "02:00:00:00:00:01"  # a hardware address that no host has: what is sent there is lost, silently


class Network:
    """Network namespaces on one bridge, on which this process is, too."""

    def __init__(self, hosts: int) -> None:
        """Name them: nothing is there yet.

        Args:
            hosts: how many, beside this process.
        """
        mark = os.getpid() % 0xFFFF
        self._bridge = f"rw{mark:x}"
        self._net = f"198.18.{mark % 256}"  # of the range that is set aside for benchmarks (RFC 2544)
        self._names = [f"{self._bridge}-{number}" for number in range(hosts)]
        self._cuts: list[tuple[int, int]] = []

    def open(self) -> None:
        """Make them."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._net}.254/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for number, name in enumerate(self._names):
            _ip("netns", "add", name)
            _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", name, "master", self._bridge, "up")
            _ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def address(self, host: int) -> str:
        """Where a host can be reached."""
        return f"{self._net}.{host + 1}"

    def within(self, host: int) -> tuple[str, ...]:
        """The command that runs another one as a process of a host."""
        return ("ip", "netns", "exec", self._names[host])

    def isolate(self, host: int) -> None:
        """Cut a host from all others. This process still reaches it."""
        for other in range(len(self._names)):
            if other != host:
                self.cut(host, other)

    def cut(self, one: int, other: int) -> None:
        """Lose whatever two hosts send each other, without telling either."""
        for near, far in itertools.permutations((one, other)):
            self._neighbor("replace", near, far, "lladdr", _NOBODY, "nud", "permanent")
            self._cuts.append((near, far))

    def heal(self) -> None:
        """Undo all cuts."""
        for near, far in set(self._cuts):
            self._neighbor("del", near, far)
        self._cuts.clear()

    def _neighbor(self, verb: str, near: int, far: int, *more: str) -> None:
        _ip("-n", self._names[near], "neigh", verb, self.address(far), "dev", "eth0", *more)

    def close(self) -> None:
        """Leave nothing behind."""
        for name in self._names:
            # With its host, a line would go a while after the command has ended, and be in the way of the next network.
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)


@contextlib.contextmanager
def network(hosts: int) -> Iterator[Network]:
    """Have a network, and remove it in the end."""
    made = Network(hosts)
    try:
        made.open()
        yield made
    finally:
        made.close()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
