"""Where a mirrored log goes: a container with a shared access signature, a bucket, or a folder."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from rankward.errors import InvalidSettings, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_AZURE_HOSTS = (".blob.core.windows.net", ".blob.core.usgovcloudapi.net", ".blob.core.chinacloudapi.cn")
_LOCAL = {"127.0.0.1", "::1", "localhost"}
_PROBE = "rankward-mirror"
_TIMEOUT = timedelta(seconds=20)


class Target:
    """A place for blobs."""

    def __init__(self, uri: str) -> None:
        """Understand an address. Nothing is sent yet.

        Args:
            uri: `https://ACCOUNT.blob.core.windows.net/CONTAINER?SIGNATURE`, or `https://HOST/ACCOUNT/CONTAINER?…` of
                another store that speaks Azure's protocol (http on this machine only); `s3://BUCKET/PREFIX`, with
                `?endpoint=` and `?region=` where they are not Amazon's own; `file:///FOLDER`.

        Raises:
            InvalidSettings: it is none of them, or what they need is not installed.
        """
        self.digest = hashlib.sha256(uri.encode()).hexdigest()
        self._store, self._prefix = _open(uri)

    async def put(self, name: str, content: bytes) -> None:
        """Write a blob, in place of an earlier one of the name.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        try:
            await asyncio.to_thread(self._store.put, f"{self._prefix}{name}", content)
        except Exception as error:  # the library has no root of its own for what a store may answer
            raise StoreUnavailable(f"the mirror does not take {name}: {_words(error)}") from error

    async def probe(self) -> None:
        """Find out whether it can be written to, by writing a blob that says what this is.

        Raises:
            StoreUnavailable: it cannot.
        """
        await self.put(f"{_PROBE}.txt", b"rankward mirrors a log here.\n")


def is_signed_address(uri: str) -> bool:
    """Whether an address carries what it takes to write there, and so costs nobody else anything."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return parts.scheme == "https" and "sig" in parse_qs(parts.query)


def _open(uri: str) -> tuple[ObjectStore, str]:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _refused() from error
    stores = _library()
    # Without encryption only where the operator says so: not where a signed address may be sent on to.
    options: dict[str, Any] = {"client_options": {"timeout": _TIMEOUT, "allow_http": parts.scheme != "https"}}
    options["retry_config"] = {"max_retries": 3, "retry_timeout": _TIMEOUT}
    segments = [segment for segment in parts.path.split("/") if segment]
    emulated = parts.scheme == "http" and parts.hostname in _LOCAL and "sig" in parse_qs(parts.query)
    if (emulated or is_signed_address(uri)) and segments and parts.hostname is not None:
        if parts.hostname.endswith(_AZURE_HOSTS):
            account, endpoint = parts.hostname.split(".")[0], None
        else:
            account, *segments = segments
            endpoint = f"{parts.scheme}://{parts.netloc}/{account}"
        if not segments:
            raise _refused()
        container, *folders = segments
        config = {"account_name": account, "sas_key": parts.query}
        if endpoint is not None:
            config["endpoint"] = endpoint
        return stores.AzureStore(container, config=config, **options), _as_prefix(folders)
    if parts.scheme == "s3" and parts.netloc:
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        config = {"region": query.get("region", "us-east-1")}
        if "endpoint" in query:
            config["endpoint"] = query["endpoint"]
        return stores.S3Store(parts.netloc, config=config, **options), _as_prefix(segments)
    if parts.scheme == "file" and not parts.netloc and segments:
        return stores.LocalStore("/" + "/".join(segments), mkdir=True), ""
    raise _refused()


def _library() -> Any:
    try:
        return import_module("obstore.store")
    except ImportError:
        raise InvalidSettings(
            "mirroring needs the extra `mirror`: pip install 'rankward[mirror]'",
            code="InvalidContainer",
            target="logMirrorSasUri",
        ) from None


def _as_prefix(segments: list[str]) -> str:
    return "".join(f"{segment}/" for segment in segments)


def _words(error: Exception) -> str:
    """What went wrong, without the address: it holds the signature."""
    return f"{type(error).__name__}: {str(error).split('?', maxsplit=1)[0][:200]}"


def _refused() -> InvalidSettings:
    return InvalidSettings(
        "logMirrorSasUri is no place to mirror to: give https://ACCOUNT.blob.core.windows.net/CONTAINER?SIGNATURE "
        "(an operator may also set s3://BUCKET/PREFIX or file:///FOLDER)",
        code="InvalidContainer",
        target="logMirrorSasUri",
    )
