"""A hub of one data set on this machine, for what `datasets` and `huggingface_hub` really ask of one."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

NAME = "owner/geese"
COMMIT = "a" * 40
CARD = """---
license: cc-by-4.0
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train.jsonl
  - split: test
    path: en/test.jsonl
- config_name: de
  data_files: de/train.jsonl
---
"""
FILES = {
    "README.md": CARD.encode(),
    "en/train.jsonl": b"".join(b'{"text": "goose %d", "n": 1}\n' % number for number in range(50)),
    "en/test.jsonl": b'{"text": "gander"}\n',
    "de/train.jsonl": '{"text": "Gänse"}\n'.encode(),
}


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]

    def _answer(self) -> None:
        path = unquote(urlparse(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.asked.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/"
        if path.startswith(files):
            self._file(path.removeprefix(files).partition("/")[2])
        elif path.startswith(f"{api}/revision/") and path.endswith(("/main", f"/{COMMIT}")):
            card = {"license": "cc-by-4.0"}
            self._json({"id": NAME, "sha": COMMIT, "cardData": card, "tags": [], "siblings": []})
        elif path.startswith(f"{api}/revision/"):
            self._send(404, b"{}", X_Error_Code="RevisionNotFound")
        elif path.startswith(f"{api}/paths-info/"):
            paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            self._json([_entry(path) for path in paths if path in FILES])
        elif path.startswith(f"{api}/tree/"):
            self._json([_entry(path) for path in FILES])
        else:
            self._send(404, b"{}", X_Error_Code="RepoNotFound")

    do_GET = do_HEAD = do_POST = _answer

    def _file(self, path: str) -> None:
        if path not in FILES:
            self._send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        data, tags = FILES[path], {"ETag": _entry(path)["oid"], "X_Repo_Commit": COMMIT}
        if wanted := self.headers.get("Range"):
            start, end = wanted.removeprefix("bytes=").split("-")
            part = data[int(start) : int(end) + 1 if end else None]
            tags["Content_Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
            self._send(206, part, **tags)
        else:
            self._send(200, data, **tags)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content_Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _entry(path: str) -> dict[str, Any]:
    data = FILES[path]
    return {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": path}


@contextmanager
def local_hub() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it has been asked so far."""
    asked: list[str] = []
    handler = type("Hub", (_Hub,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
