"""A bucket on this machine: as much of the protocol of S3 as an archive needs, conditional writes among it."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape


class Bucket:
    """Objects by name. It can be told to be out of reach."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refusing = False
        self.reads: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                if "list-type" in query:
                    self._answer(200, outer.listed(query.get("prefix", ""), query.get("delimiter")).encode())
                    return
                name = unquote(parts.path).removeprefix("/bucket/")
                outer.reads.append(name)
                content = outer.objects.get(name)
                self._answer(404 if content is None else 200, content or b"")

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                name = unquote(urlsplit(self.path).path).removeprefix("/bucket/")
                held = outer.objects.get(name)
                wanted = self.headers.get("If-Match")
                fits = (wanted is None or (held is not None and wanted == tag_of(held))) and not (
                    self.headers.get("If-None-Match") == "*" and held is not None
                )
                if fits and not outer.refusing:
                    outer.objects[name] = content
                self._answer(200 if fits else 412, b"", tag_of(content))

            def do_POST(self) -> None:
                """Remove several objects."""
                asked = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                names = [unescape(name) for name in re.findall("<Key>(.*?)</Key>", asked)]
                for name in () if outer.refusing else names:
                    outer.objects.pop(name, None)
                deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
                self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

            def _answer(self, status: int, content: bytes, tag: str | None = None) -> None:
                self.send_response(403 if outer.refusing else status)
                self.send_header("ETag", tag or tag_of(content))
                self.send_header("Last-Modified", "Thu, 09 Oct 2025 08:00:00 GMT")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"s3://bucket/logs?endpoint=http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def listed(self, prefix: str, delimiter: str | None) -> str:
        """Answer a list."""
        found, folders = [], set()
        for name, content in sorted(self.objects.items()):
            if name.startswith(prefix):
                head, slash, _ = name[len(prefix) :].partition(delimiter or "\0")
                if slash:
                    folders.add(f"{prefix}{head}{slash}")
                else:
                    found.append(
                        f"<Contents><Key>{escape(name)}</Key><Size>{len(content)}</Size>"
                        f"<LastModified>2025-10-09T08:00:00.000Z</LastModified><ETag>{tag_of(content)}</ETag></Contents>"
                    )
        found += [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(found)}</ListBucketResult>"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def tag_of(content: bytes) -> str:
    """What tells one content from another."""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
