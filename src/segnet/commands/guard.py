"""What stands in front of the demo's page: who may ask it, and how much it takes."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
MARGIN = 100_000  # bytes of a request beside the file that it uploads


class Guard:
    """ASGI middleware that answers strangers and excesses before the page does.

    A page of another site can make a browser ask this machine. So the Host header must name this server, which a name
    that a stranger's DNS points here (DNS rebinding) does not, and an Origin header must name the same host.

    Args:
        app: what answers the rest.
        host: the address that it listens on.
        port: and the port.
        folder: where uploads are kept.
        most: bytes of one request.
        total: bytes that the folder may hold.
        files: that it may hold.
        seconds: that a request with a body may take.
    """

    def __init__(
        self, app: App, host: str, port: int, folder: Path, most: int, total: int, files: int, seconds: float
    ) -> None:
        self.app, self.host, self.port = app, host, port
        self.folder, self.most, self.total, self.files, self.seconds = folder, most, total, files, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it in a line."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # the page uses none
            await send({"type": "websocket.close", "code": 1008})
            return
        if (refused := self._refused(scope)) is not None:
            await _answer(send, *refused)
        elif scope["method"] in ("GET", "HEAD"):  # among them the streams of events, which stay open
            await self.app(scope, receive, send)
        else:
            await self._in_time(scope, receive, send)

    async def _in_time(self, scope: Message, receive: Receive, send: Send) -> None:
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await asyncio.wait_for(self.app(scope, receive, noticed), self.seconds)
        except TimeoutError:
            if not begun:
                await _answer(send, 408, f"the request took longer than {self.seconds:g} s")

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if len(host) != 1 or not self._is_mine(host[0]):
            return 403, "this host name is not served"
        if any(
            origin.lower() not in (f"http://{h}", f"https://{h}") for h in host for origin in headers.get("origin", [])
        ):
            return 403, "requests of other sites are not served"
        if "transfer-encoding" in headers:
            return 411, "a length is required"
        try:
            length = sum(int(value) for value in headers.get("content-length", []))
        except ValueError:
            return 400, "no length"
        if length > self.most + MARGIN:
            return 413, f"larger than {self.most} bytes"
        if scope["path"].rstrip("/").endswith("/upload"):
            sizes = [file.stat().st_size for file in self.folder.rglob("*") if file.is_file()]
            if len(sizes) >= self.files or sum(sizes) + length > self.total:
                return 507, "too many files were uploaded lately; try again in some minutes"
        return None

    def _is_mine(self, header: str) -> bool:
        name, _, port = header.lower().rpartition(":")
        if name.endswith("]") or (name and port.isdigit()):
            if port != str(self.port):
                return False
        else:
            name = header.lower()
            if self.port != 80:
                return False
        if name in (self.host.lower(), f"[{self.host.lower()}]"):
            return True
        if _is_loopback(self.host):
            return name in ("localhost", "127.0.0.1", "[::1]")
        try:  # a DNS name can be pointed here by anyone, an address cannot
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in ("localhost", socket.gethostname().lower(), socket.getfqdn().lower())
        return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
