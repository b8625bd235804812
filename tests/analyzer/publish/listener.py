"""A real HTTP listener on the loopback that keeps what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Listener:
    """What arrived, and what is answered next.

    Attributes:
        answers: Status codes of the next answers; when used up, 200.
        received: (path, headers in lower case, body) of every request that was answered 200.
    """

    url: str = ""
    answers: list[int] = field(default_factory=list)
    n_requests: int = 0
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def listening(port: int = 0) -> Iterator[Listener]:
    """Run a listener as long as the block lasts."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = listener.answers.pop(0) if listener.answers else 200
            listener.n_requests += 1
            if code == 200:
                headers = {name.lower(): text for name, text in self.headers.items()}
                listener.received.append((self.path, headers, body))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    listener.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
