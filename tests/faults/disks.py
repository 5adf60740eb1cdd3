"""A disk that can lose its power, and get full: a file system of its own on a file. Needs root, and Linux."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount disks and make networks")
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NOT_EVEN_THE_JOURNAL = struct.pack("I", 2)  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Disk:
    """A file system that keeps, when its power is lost, only what was flushed to it."""

    def __init__(self, image: Path, at: Path, megabytes: int) -> None:
        """Make it and mount it.

        Args:
            image: the file that stands for the device.
            at: where it is mounted.
            megabytes: its size.
        """
        self._image = image
        self.at = at
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        self.mount()

    def mount(self) -> None:
        """Make it usable, after its power came back as well."""
        self.at.mkdir(exist_ok=True)
        _run("mount", "-o", "loop", str(self._image), str(self.at))

    def unmount(self) -> None:
        """Put it away. Nobody may have files open on it."""
        _run("umount", str(self.at))

    def lose_power(self) -> None:
        """Forget what was not flushed, this very moment. Whoever writes or reads gets an input/output error."""
        descriptor = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NOT_EVEN_THE_JOURNAL)
        finally:
            os.close(descriptor)

    def fill(self) -> None:
        """Take all the room that is left."""
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.at / "ballast"


@contextlib.contextmanager
def disk(folder: Path, name: str, *, megabytes: int = 256) -> Iterator[Disk]:
    """Have a disk at `folder / name`, and leave nothing mounted."""
    made = Disk(folder / f"{name}.img", folder / name, megabytes)
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", str(made.at)], check=False, capture_output=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
