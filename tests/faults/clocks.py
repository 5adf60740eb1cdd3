"""Sets the clock that one process sees, as no library can be slipped under a static program."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import time
from pathlib import Path

import psutil

# clock_gettime as the kernel does it, and then some seconds more if the clock asked for is CLOCK_REALTIME (0).
_CODE = bytes.fromhex(
    "b8e4000000"  # mov eax, 228
    "0f05"  # syscall
    "85ff"  # test edi, edi
    "7507"  # jnz to ret
    "488106"  # add qword ptr [rsi], the number that follows
)
_RET = bytes.fromhex("c3")


def can_shift() -> bool:
    """Whether this machine is one that it works on."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def shift_clock(pid: int, by_s: int) -> None:
    """Let a process see a time of day that differs from the machine's. Its timers go on as they were.

    The kernel maps the code that reads the clock (the vDSO) into every process. In this one it is written over, while
    none of its threads is within the bytes concerned. What the process starts is not affected.

    Args:
        pid: the process.
        by_s: how many seconds it is ahead of the machine; negative: behind. A second call replaces the first.
    """
    code = _CODE + by_s.to_bytes(4, "little", signed=True) + _RET
    start = _mapped_at(pid) + _offset_of_clock_gettime()
    process = psutil.Process(pid)
    while True:
        process.suspend()
        try:
            counters = _program_counters(pid)
            while None in counters:
                time.sleep(0.001)
                counters = _program_counters(pid)
            if not any(start < counter < start + len(code) for counter in counters if counter is not None):
                with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
                    memory.seek(start)
                    memory.write(code)
                return
        finally:
            process.resume()


def _mapped_at(pid: int) -> int:
    found = re.search(r"^([0-9a-f]+)-.*\[vdso\]$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    assert found, f"process {pid} maps no vDSO"
    return int(found[1], 16)


def _offset_of_clock_gettime() -> int:
    function = ctypes.CDLL("linux-vdso.so.1")["__vdso_clock_gettime"]
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address - _mapped_at(os.getpid())


def _program_counters(pid: int) -> list[int | None]:
    """Where each thread of a process that is told to stop goes on; None: it has not stopped yet."""
    states = [path.read_text().split()[-1] for path in Path(f"/proc/{pid}/task").glob("*/syscall")]
    return [None if state == "running" else int(state, 16) for state in states]
