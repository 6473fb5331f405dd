"""A hub on this machine: it answers the client's requests for one repository, with the files that were pushed."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Its address, files, whether everybody reads them (None: no repository yet), and the requests that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.private: bool | None = None
        self.requests: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def plain(self, content: Any, status: int = 200, **headers: str) -> None:
        self.answer(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def do_GET(self) -> None:
        hub, path = self.server, unquote(self.path.partition("?")[0])
        hub.requests.append(f"{self.command} {path}")
        if hub.private is None or path == "/api/agent-harnesses":  # which the client asks for, and can do without
            self.plain({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
        elif "/tree/" in path:
            rows = hub.files.items()
            self.plain(
                [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in rows]
            )
        elif path.startswith("/api/models/user/name"):
            siblings = [{"rfilename": name} for name in hub.files]
            self.plain({"id": "user/name", "sha": REVISION, "private": hub.private, "siblings": siblings, "tags": []})
        else:
            content = hub.files[path.partition(f"/resolve/{REVISION}/")[2]]
            self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=REVISION)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            asked = json.loads(body)  # clients before version 2 say private
            hub.private = asked["visibility"] == "private" if "visibility" in asked else asked["private"]
            self.plain({"url": f"{hub.url}/user/name"})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.plain({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in path:
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    hub.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            url = f"{hub.url}/user/name/commit/{REVISION}"
            self.plain({"success": True, "commitOid": REVISION, "commitUrl": url, "hookOutput": ""})
        else:
            self.plain({}, 200)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub until the end of the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
