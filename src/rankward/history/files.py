"""Files of log lines: found in folders, opened whatever their compression, and known by their digest."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from rankward.errors import InvalidRequest, NotFound

LINE_BYTES_MAX = 16 * 1024**2
STANDARD = Path("-")
"""Names standard input or output."""

_READ_BYTES_MAX = 64 * 1024**2  # of lines that are read at once
_BUFFER_BYTES = 1 << 20
_PACKED_BYTES = 1 << 10  # that are decompressed at once: zstd makes up to 32 MB of them
_MAGIC_GZIP = b"\x1f\x8b"
_MAGIC_ZSTD = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
_ENDINGS = {".json", ".jsonl", ".dsjson", ".ndjson", ".log", ".gz", ".zst", ".parquet"}
_TABLE_ENDINGS = {".csv", ".tsv", ".gz", ".zst", ".parquet"}
_BINARY = ".fb"
_NEVER_LEARNED = "skipped-data"  # where Personalizer put events that were never activated


class LogFile:
    """A file of lines, as they are read."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be read.
        """
        self.path = path
        self._raw = path.open("rb", _BUFFER_BYTES)
        self.size = path.stat().st_size
        head = self._raw.read(len(_MAGIC_ZSTD))
        self._raw.seek(0)
        self._lines: IO[bytes] = self._raw
        if head.startswith(_MAGIC_GZIP):
            self._lines = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw))
        elif head == _MAGIC_ZSTD:
            self._lines = io.BufferedReader(_Unpacked(self._raw), _BUFFER_BYTES)

    @property
    def position(self) -> int:
        """How many bytes of the file have been read, compressed as they are."""
        return self._raw.tell()

    def lines(self, count: int) -> list[bytes]:
        """Read the next lines, at most so many, and fewer where they are long; none at the end.

        Raises:
            InvalidRequest: the file is damaged, or no file of lines.
        """
        found: list[bytes] = []
        size = 0
        try:
            for line in islice(iter(lambda: self._lines.readline(LINE_BYTES_MAX), b""), count):
                found.append(line)
                size += len(line)
                if size >= _READ_BYTES_MAX:
                    break
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise InvalidRequest(f"{self.path} is damaged: {error}. What came before is read.") from error
        if any(len(line) == LINE_BYTES_MAX for line in found):
            raise InvalidRequest(f"{self.path} has a line of more than {LINE_BYTES_MAX:,} bytes: it is no log")
        return found

    def texts(self) -> Iterator[str]:
        """Read the lines one by one, ends and all; bytes that are not UTF-8 become surrogates.

        Raises:
            InvalidRequest: the file is damaged, or no file of lines.
        """
        for line in iter(lambda: self.lines(1), []):
            yield line[0].removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()
        self._raw.close()


class _Unpacked(io.RawIOBase):
    """Decompresses zstd frames. Unlike the library's own reader, it notices when the last one was cut off."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._frame: zstandard.ZstdDecompressionObj | None = None  # None: between two frames
        self._unread = memoryview(b"")  # of what has been taken from the file
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._unread = self._unread or memoryview(self._packed.read(_BUFFER_BYTES))
            if not self._unread:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            chunk = self._unread[:_PACKED_BYTES]
            self._ready = memoryview(self._frame.decompress(chunk))
            self._unread = self._unread[len(chunk) - len(self._frame.unused_data) :]
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def log_files(paths: Sequence[Path], *, tables: bool = False) -> list[Path]:
    """Find the files of logs: those named, and those in folders, oldest first as Personalizer named them.

    In a folder, files with other endings than those of logs are passed over, and so are events that Personalizer
    set apart as never learned.

    Args:
        paths: of files and folders.
        tables: whether to look for tables of others in folders, and not for logs.

    Raises:
        NotFound: there is nothing of that name, or nothing in a folder.
    """
    endings = _TABLE_ENDINGS if tables else _ENDINGS
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NotFound(f"there is no file or folder {path}")
        if not path.is_dir():
            found.append(path)
            continue
        within = [
            each
            for each in sorted(path.rglob("*"))
            if each.is_file() and each.suffix.lower() in endings and _NEVER_LEARNED not in each.parts
        ]
        if not within:
            raise NotFound(f"{path} has no file that ends in {', '.join(sorted(endings))}")
        found += within
    return found


def binary_logs(paths: Sequence[Path]) -> list[Path]:
    """Find the logs in folders that are in Personalizer's binary form, which `log_files` passes over."""
    return [each for path in paths if path.is_dir() for each in sorted(path.rglob(f"*{_BINARY}")) if each.is_file()]


@contextlib.contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Write a file aside and rename it when it is whole; compress it if its name ends so.

    Args:
        path: ending in `.gz` or `.zst`, or not; `-` is standard output.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    aside = path.with_name(path.name + ".part")
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(aside.open("wb"))
            match path.suffix.lower():
                case ".gz":
                    packed = gzip.GzipFile(path.stem, "wb", compresslevel=6, fileobj=raw)
                    yield cast(IO[bytes], stack.enter_context(packed))
                case ".zst":
                    yield stack.enter_context(zstandard.ZstdCompressor(level=7).stream_writer(raw, closefd=False))
                case _:
                    yield raw
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
