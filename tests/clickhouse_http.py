"""ClickHouse's HTTP interface over chDB: a server for tests, in a process of its own.

    python -m tests.clickhouse_http --path DIRECTORY [--port 0] [--cluster NAME]

prints its port once it answers, and ends with SIGTERM or with the process that started it. It
serves what an HTTP client of ClickHouse uses: statements in the query string or the body, bound
parameters (also as a form), settings, a database, rows to insert in any format, packed bodies
and answers, and errors with their code. Each request has a session of its own, as on a server.

With ``--cluster`` the engine is the one node of a cluster: Distributed tables and
``clusterAllReplicas`` are real. What needs a Keeper is left out of the statements: ``ON
CLUSTER``, ``Replicated`` engines, waiting for replicas.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import chdb
import pyarrow as pa

__all__ = ["served"]

# Of the protocol, not of the engine.
NO_SETTINGS: Final = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "session_check",
        "session_id",
        "session_timeout",
        "user",
        "wait_end_of_query",
    }
)
INSERT: Final = re.compile(
    rb"\s*(INSERT\s+INTO\s+[^\s(]+\s*(?:\([^)]*\))?)\s*FORMAT\s+(\w+)[ \t]*;?\r?\n?", re.I
)
FORMAT: Final = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.I)
CODECS: Final = {"gzip": "gzip", "zstd": "zstd", "lz4": "lz4"}
PIECE_BYTES: Final = 1 << 20

ON_CLUSTER: Final = re.compile(r" ON CLUSTER '[^']*'")
REPLICATED: Final = re.compile(r"\bReplicated(\w*MergeTree)\('[^']*', '[^']*'\)")
SYNC: Final = re.compile(r"SYSTEM SYNC REPLICA\b")
CLUSTER_CONFIG: Final = """<clickhouse>
  <tcp_port>1</tcp_port>
  <remote_servers><{name}><shard><replica>
    <host>127.0.0.1</host><port>1</port>
  </replica></shard></{name}></remote_servers>
  <macros><shard>1</shard><replica>1</replica></macros>
</clickhouse>"""
"""The engine compares address and port with its own, and does not call itself."""


@contextmanager
def served(path: Path, *, cluster: str = "") -> Iterator[str]:
    """Run a server over a directory and yield its URL for `open_store`."""
    command = [sys.executable, "-m", "tests.clickhouse_http", "--path", str(path)]
    process = subprocess.Popen(
        [*command, *(["--cluster", cluster] if cluster else [])],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    with process.stdout:
        port = process.stdout.readline().strip().decode()
        assert port, "the server did not start"
        try:
            query = f"?cluster={cluster}" if cluster else ""
            yield f"clickhouse://127.0.0.1:{port}/default{query}"
        finally:
            process.terminate()
            assert process.wait(30) == 0


class Engine:
    """chDB on one directory."""

    def __init__(self, path: Path, cluster: str) -> None:
        self._url, self._cluster = str(path), cluster
        if cluster:
            config = path.with_name(path.name + "-cluster.xml")
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text(CLUSTER_CONFIG.format(name=cluster))
            self._url += f"?config-file={config}"
        # The engine lives as long as one session does.
        self._alive = self._session()

    def run(
        self,
        statement: bytes,
        *,
        database: str,
        settings: dict[str, str],
        parameters: dict[str, str],
        default_format: str,
    ) -> tuple[bytes, str, int]:
        """Run one statement in a session of its own; return the answer, its format, rows read."""
        with closing(self._session()) as session:
            session.query(f"USE `{database}`")
            if settings:
                values = (f"{name} = {quoted(value)}" for name, value in settings.items())
                session.query(f"SET {', '.join(values)}")
            if found := INSERT.match(statement):
                rows = session.send_insert(found[1].decode(), found[2].decode())
                rows.append(statement[found.end() :])
                return b"", "TabSeparated", rows.finish().rows_written
            sql = self._without_keeper(statement.decode())
            if not sql:
                return b"", "TabSeparated", 0
            asked = FORMAT.search(sql)
            kind = asked[1] if asked else default_format
            result = session.query(sql, kind, params=parameters)
            return result.bytes() or b"", kind, result.rows_read()

    def close(self) -> None:
        self._alive.close()

    def _session(self) -> Any:
        return chdb.connect(self._url)  # type: ignore[no-untyped-call]

    def _without_keeper(self, sql: str) -> str:
        if not self._cluster:
            return sql
        if SYNC.match(sql):
            return ""
        return ON_CLUSTER.sub("", REPLICATED.sub(r"\1", sql))


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unpacked(body: bytes, encoding: str | None) -> bytes:
    if not encoding or encoding == "identity":
        return body
    with pa.CompressedInputStream(pa.BufferReader(body), CODECS[encoding]) as stream:
        return bytes(stream.read())


def packed(body: bytes, encoding: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, CODECS[encoding]) as stream:
        stream.write(body)
    return bytes(sink.getvalue().to_pybytes())


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Read a multipart form: a question whose parameters are too long for an address."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + body).get_payload()
    assert isinstance(parts, list)
    fields = {}
    for part in parts:
        assert isinstance(part, Message)
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        fields[str(name)] = payload.decode()
    return fields


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    engine: Engine

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        address = urlsplit(self.path)
        body = self._body()
        if address.path == "/ping":
            self._send(200, b"Ok.\n", {})
            return
        try:
            answer, kind, n_rows = self._run(dict(parse_qsl(address.query, True)), body)
        except Exception as error:
            text = str(error)
            code = re.search(r"Code: (\d+)", text)
            self._send(
                500,
                text.encode(),
                {"X-ClickHouse-Exception-Code": code[1] if code else "1001"},
            )
            return
        summary = {"read_rows": str(n_rows), "written_rows": str(n_rows)}
        headers = {
            "X-ClickHouse-Format": kind,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Summary": json.dumps(summary),
        }
        self._send(200, answer, headers)

    def _run(self, fields: dict[str, str], body: bytes) -> tuple[bytes, str, int]:
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            fields, body = {**fields, **form_fields(content_type, body)}, b""
        statement = fields.get("query", "").encode()
        # Rows follow a statement in the address.
        statement += b"\n" + body if statement and body else body
        return self.engine.run(
            statement,
            database=fields.get("database") or "default",
            settings={
                name: value
                for name, value in fields.items()
                if name not in NO_SETTINGS and not name.startswith("param_")
            },
            parameters={
                name.removeprefix("param_"): value
                for name, value in fields.items()
                if name.startswith("param_")
            },
            default_format=fields.get("default_format", "TabSeparated"),
        )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = bytearray(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        return unpacked(bytes(body), self.headers.get("Content-Encoding"))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        wanted = self.headers.get("Accept-Encoding", "").replace(" ", "").split(",")
        encoding = next((name for name in wanted if name in CODECS), None)
        if encoding and len(body) > 1024:
            body, headers = packed(body, encoding), {**headers, "Content-Encoding": encoding}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cluster", default="")
    asked = parser.parse_args()
    engine = Engine(asked.path, asked.cluster)
    Handler.engine = engine
    server = Server(("127.0.0.1", asked.port), Handler)
    parent = os.getppid()

    def end_with_the_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        server.shutdown()

    def end(*_: Any) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    print(server.server_address[1], flush=True)
    with server:
        server.serve_forever(poll_interval=0.1)
    engine.close()


if __name__ == "__main__":
    main()
