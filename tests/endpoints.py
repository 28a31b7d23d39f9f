"""An OpenAI-compatible endpoint for tests: a small HTTP server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
"""A status, and a JSON value or raw text."""


@dataclass
class Served:
    """A running endpoint: its URL and the requests that it got, as (path, body, headers)."""

    url: str
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)


@contextmanager
def endpoint(
    reply: Callable[[str, Any], Reply], headers: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Serve `reply(path, body)`: the path without `/v1/`, the body None for a GET.

    Each answer has these `headers` besides its own.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self._reply(json.loads(self.rfile.read(length)))

        def do_GET(self) -> None:
            self._reply(None)

        def _reply(self, body: Any) -> None:
            path = self.path.removeprefix("/v1/")
            served.asked.append((path, body, dict(self.headers)))
            status, value = reply(path, body)
            text = value if isinstance(value, str) else json.dumps(value)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", text)
            for name, text_of in (headers or {}).items():
                self.send_header(name, text_of)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def models(*names: str) -> Reply:
    """The reply to `models`."""
    return 200, {"data": [{"id": name} for name in names]}


def completion(text: Any) -> Reply:
    """The reply to `completions`."""
    return 200, {"choices": [{"text": text, "finish_reason": "stop"}]}


def message(content: Any, **more: Any) -> Reply:
    """The reply to `chat/completions`."""
    said = {"role": "assistant", "content": content, **more}
    return 200, {"choices": [{"message": said, "finish_reason": "stop"}]}
