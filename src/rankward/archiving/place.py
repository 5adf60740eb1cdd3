"""Where an archive lies: a bucket of any store that speaks the protocol of S3, Google's or Azure's, or a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from rankward.archiving.layout import shown
from rankward.errors import Conflict, InvalidRequest, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TIMEOUT = timedelta(seconds=60)
_SCHEMES = {"s3", "gs", "az", "file"}


class Tagged(NamedTuple):
    """What an object holds, and the store's name for that very version of it."""

    content: bytes
    tag: str | None  # None: the store has none


class Place:
    """A bucket, or a part of one, or a folder. Its calls wait for the store."""

    def __init__(self, url: str) -> None:
        """Understand an address. Nothing is asked of the store yet.

        Args:
            url: `s3://BUCKET/PREFIX`, with `?endpoint=` and `?region=` where they are not Amazon's own;
                `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `file:///FOLDER`. Credentials are in the environment,
                under the names that the store's own tools use.

        Raises:
            InvalidRequest: it is none of them, or what they need is not installed.
        """
        self._store, self._root = _open(url)
        self.url = shown(url)
        """The address, fit to be shown."""

    def read(self, name: str) -> bytes | None:
        """Return what an object holds. None: there is no such object.

        Raises:
            StoreUnavailable: the store does not answer, or does not allow it.
        """
        found = self.read_tagged(name)
        return None if found is None else found.content

    def read_tagged(self, name: str) -> Tagged | None:
        """Return what an object holds, with what it takes to `replace` just that. Errors as of `read`."""
        with self._translated(name):
            try:
                found = self._store.get(name)
            except FileNotFoundError:
                return None
            return Tagged(bytes(found.bytes()), found.meta["e_tag"])
        return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, durably and as a whole, in place of an earlier one of the name. Errors as of `read`."""
        with self._translated(name):
            self._store.put(name, content)
            self._flush(name)

    def replace(self, name: str, content: bytes, tag: str | None) -> str | None:
        """Write an object in the place of what was read, and of nothing else where the store can tell.

        Args:
            name: of the object.
            content: to write.
            tag: of what was read; None: there was none.

        Returns:
            The tag of what is there now.

        Raises:
            Conflict: somebody else has written it meanwhile.
            StoreUnavailable: as of `read`.
        """
        with self._translated(name):
            if self._root is not None:  # a folder cannot tell: one process at a time writes there
                mode: Any = "overwrite"
            else:
                mode = "create" if tag is None else {"e_tag": tag}
            try:
                written = self._store.put(name, content, mode=mode)
            except self._refused as error:
                raise Conflict(f"{self.url}/{name} was written by another process: it is read again") from error
            self._flush(name)
        return written["e_tag"]

    def remove(self, name: str) -> None:
        """Remove an object. It need not be there. Errors as of `read`."""
        with self._translated(name), contextlib.suppress(FileNotFoundError):
            self._store.delete(name)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all objects in a folder and below, in order. Errors as of `read`."""
        with self._translated(folder):
            return sorted(found["path"] for page in self._store.list(folder) for found in page)
        return []

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders in a folder, each with a slash at its end. Errors as of `read`."""
        with self._translated(folder):
            return sorted(f"{each}/" for each in self._store.list_with_delimiter(folder)["common_prefixes"])
        return []

    @property
    def _refused(self) -> tuple[type[Exception], ...]:
        found = import_module("obstore.exceptions")
        return found.AlreadyExistsError, found.PreconditionError

    def _flush(self, name: str) -> None:
        """See to it that what was written to a folder survives a loss of power."""
        if self._root is None:
            return
        path = self._root / name
        for each in (path, *path.parents):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if each == self._root:
                break

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except Conflict:
            raise
        except Exception as error:  # the library has no root of its own for what a store may answer
            words = f"{type(error).__name__}: {str(error).splitlines()[0].split('?', maxsplit=1)[0][:200]}"
            raise StoreUnavailable(f"the archive {self.url} fails at {name or 'its list'}: {words}") from error


def _open(url: str) -> tuple[ObjectStore, Path | None]:
    """Open the store; beside it the folder, if it is one."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refused(url) from error
    if parts.scheme not in _SCHEMES:
        raise _refused(url)
    try:
        stores = import_module("obstore.store")
    except ImportError:
        raise InvalidRequest("an archive needs the extra `archive`: pip install 'rankward[archive]'") from None
    if parts.scheme == "file":
        if parts.netloc or not parts.path.strip("/"):
            raise _refused(url)
        root = Path(unquote(parts.path))
        try:
            return stores.LocalStore(root, mkdir=True), root
        except Exception as error:
            raise InvalidRequest(f"the folder {root} cannot be used as an archive: {error}") from error
    if not parts.netloc:
        raise _refused(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    config = {name: query[name] for name in ("endpoint", "region") if name in query and parts.scheme == "s3"}
    # Without encryption only where the operator names such an endpoint.
    options: Any = {"timeout": _TIMEOUT, "allow_http": True}
    retries: Any = {"max_retries": 3, "retry_timeout": _TIMEOUT}
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}"
    try:
        return stores.from_url(plain, config=config, client_options=options, retry_config=retries), None
    except Exception as error:
        raise InvalidRequest(f"{plain} cannot be opened: {str(error).splitlines()[0][:200]}") from error


def is_url(text: str) -> bool:
    """Whether a text is an address that a `Place` may have, rather than a path."""
    return text.partition("://")[0] in _SCHEMES and "://" in text


def _refused(url: str) -> InvalidRequest:
    return InvalidRequest(
        f"{url.partition('?')[0]!r} is no place for an archive: give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
        "az://CONTAINER/PREFIX or file:///FOLDER"
    )
