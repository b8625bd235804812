"""A small Grafana that holds every request against Grafana's own API description.

It keeps folders, dashboards, data sources, annotations and alert rules, and refuses what a
Grafana refuses: an unknown path, a wrong type, a missing field, an unknown folder, a version
conflict, a rule whose condition names no query. What a Grafana would swallow without a word,
such as a key that it does not know, is noted in `problems`.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from jsonschema import Draft7Validator

Json: TypeAlias = Any
Answer: TypeAlias = tuple[int, Json]

DESCRIPTION: Final = Path(__file__).with_name("grafana_openapi.json.gz")
TOKEN: Final = "glsa_test"
LOGIN: Final = ("admin", "secret")
_DURATION: Final = re.compile(r"0|([0-9]+(ms|[smhdwy]))+")
_UID: Final = re.compile(r"[a-zA-Z0-9_-]{1,40}")
# Epoch milliseconds have passed this since 1973; seconds will in the year 5138.
_FIRST_MS: Final = 10**11


class RefusalError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Description:
    """Grafana's API description, with unknown keys of a body as errors."""

    def __init__(self) -> None:
        self._document = json.loads(gzip.decompress(DESCRIPTION.read_bytes()))
        for schema in self._document["components"]["schemas"].values():
            if schema.get("properties"):
                schema.setdefault("additionalProperties", False)
        routes = []
        for path, operations in self._document["paths"].items():
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
            routes.append((path.count("{"), re.compile(f"{pattern}/?"), operations))
        # The more of a path is fixed, the better it fits.
        self._routes = sorted(routes, key=lambda route: route[0])

    def operation(self, method: str, path: str) -> tuple[Json, dict[str, str]]:
        """Return the operation and the values in the path."""
        for _, pattern, operations in self._routes:
            match = pattern.fullmatch(path)
            if match and method.lower() in operations:
                return operations[method.lower()], match.groupdict()
        raise RefusalError(404, f"no such operation: {method} {path}")

    def problems(self, operation: Json, query: dict[str, list[str]], body: Json) -> Iterator[str]:
        """Say what of a request the description does not know or allow."""
        known = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
        yield from (f"unknown query parameter {name}" for name in query if name not in known)
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            root = {"allOf": [schema], "components": self._document["components"]}
            for error in Draft7Validator(root).iter_errors(_without_nulls(body)):
                yield f"{'/'.join(map(str, error.absolute_path))}: {error.message}"


def _without_nulls(value: Json) -> Json:
    """Drop nulls: to Go they are what is not there."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


@dataclass
class FakeGrafana:
    """The state, and the operations by their ids in the description.

    Attributes:
        calls: Every call as "METHOD path".
        problems: What a Grafana would have swallowed.
        failures: Status codes of the next answers, before anything is done.
    """

    url: str = ""
    calls: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    folders: dict[str, Json] = field(default_factory=dict)
    dashboards: dict[str, Json] = field(default_factory=dict)
    datasources: dict[str, Json] = field(default_factory=dict)
    annotations: dict[int, Json] = field(default_factory=dict)
    rules: dict[str, Json] = field(default_factory=dict)
    intervals: dict[tuple[str, str], int] = field(default_factory=dict)
    n_ids: int = 0

    def state(self) -> Json:
        """Return a copy of all that was pushed."""
        kept = (self.folders, self.dashboards, self.annotations, self.rules, self.intervals)
        return copy.deepcopy(kept)

    def add_prometheus(self, uid: str, *, default: bool = False) -> None:
        """Add a data source, as somebody did before us."""
        self.datasources[uid] = {
            "id": self._next_id(), "uid": uid, "name": uid.title(), "type": "prometheus",
            "isDefault": default,
        }  # fmt: skip

    def _next_id(self) -> int:
        self.n_ids += 1
        return self.n_ids

    def _folder(self, uid: str, status: int) -> Json:
        if uid not in self.folders:
            raise RefusalError(status, "folder not found")
        return self.folders[uid]

    # Folders.

    def getFolderByUID(self, path: dict[str, str], _query: Json, _body: Json) -> Answer:
        return 200, self._folder(path["folder_uid"], 404)

    def createFolder(self, _path: Json, _query: Json, body: Json) -> Answer:
        if not body.get("title") or not _UID.fullmatch(body.get("uid", "")):
            raise RefusalError(400, "a folder needs a title and a valid uid")
        if body["uid"] in self.folders:
            raise RefusalError(409, "a folder with that uid already exists")
        self.folders[body["uid"]] = {"id": self._next_id(), "version": 1, **body}
        return 200, self.folders[body["uid"]]

    # Dashboards.

    def getDashboardByUID(self, path: dict[str, str], _query: Json, _body: Json) -> Answer:
        kept = self.dashboards.get(path["uid"])
        if kept is None:
            raise RefusalError(404, "Dashboard not found")
        return 200, {"dashboard": kept["dashboard"], "meta": {"folderUid": kept["folderUid"]}}

    def postDashboard(self, _path: Json, _query: Json, body: Json) -> Answer:
        new = body["dashboard"]
        if "elements" in new or str(new.get("apiVersion", "")).startswith("dashboard.grafana.app"):
            raise RefusalError(400, "dashboard appears to be in v2 format")
        if not new.get("title") or not _UID.fullmatch(new.get("uid", "")):
            raise RefusalError(400, "a dashboard needs a title and a valid uid")
        folder = body.get("folderUid", "")
        if folder:
            self._folder(folder, 400)
        old = self.dashboards.get(new["uid"])
        version = old["dashboard"]["version"] if old else 0
        if old and not body.get("overwrite") and new.get("version") != version:
            raise RefusalError(412, "The dashboard has been changed by someone else")
        number = old["dashboard"]["id"] if old else self._next_id()
        # A Grafana adds what it knows better.
        kept = {**new, "id": number, "version": version + 1, "gnetId": None}
        self.dashboards[new["uid"]] = {"folderUid": folder, "dashboard": kept}
        return 200, {"uid": new["uid"], "version": version + 1, "status": "success"}

    # Data sources.

    def getDataSources(self, _path: Json, _query: Json, _body: Json) -> Answer:
        return 200, list(self.datasources.values())

    # Annotations.

    def getAnnotations(self, _path: Json, query: dict[str, list[str]], _body: Json) -> Answer:
        wanted = set(query.get("tags", []))
        return 200, [a for a in self.annotations.values() if wanted <= set(a["tags"])]

    def postAnnotation(self, _path: Json, _query: Json, body: Json) -> Answer:
        if not body.get("text"):
            raise RefusalError(400, "text field should not be empty")
        number = self._next_id()
        self.annotations[number] = {"id": number, **self._annotation(body)}
        return 200, {"id": number, "message": "Annotation added"}

    def patchAnnotation(self, path: dict[str, str], _query: Json, body: Json) -> Answer:
        number = int(path["annotation_id"])
        if number not in self.annotations:
            raise RefusalError(404, "Annotation not found")
        self.annotations[number] |= self._annotation(body)
        return 200, {"message": "Annotation patched"}

    def _annotation(self, body: Json) -> Json:
        for key in ("time", "timeEnd"):
            if 0 < (body.get(key) or 0) < _FIRST_MS:
                self.problems.append(f"annotation: {key} looks like seconds")
        return {k: v for k, v in body.items() if v is not None}

    # Alert rules.

    def GetAlertRuleGroup(self, path: dict[str, str], _query: Json, _body: Json) -> Answer:
        place = (path["FolderUID"], path["Group"])
        rules = [r for r in self.rules.values() if (r["folderUID"], r["ruleGroup"]) == place]
        if not rules:
            raise RefusalError(404, "rule group does not exist")
        return 200, {
            "title": place[1], "folderUid": place[0], "interval": self.intervals[place],
            "rules": rules,
        }  # fmt: skip

    def PutAlertRuleGroup(self, path: dict[str, str], _query: Json, body: Json) -> Answer:
        place = (path["FolderUID"], path["Group"])
        self._folder(place[0], 400)
        if not body["interval"] or body["interval"] % 10:
            raise RefusalError(400, "the interval should be a multiple of 10 seconds")
        if (body["folderUid"], body["title"]) != place:
            raise RefusalError(400, "folder and title differ from the path")
        for rule in body["rules"]:
            self._check_rule(rule)
        kept = {r["uid"] for r in body["rules"]}
        stale = [
            uid
            for uid, rule in self.rules.items()
            if (rule["folderUID"], rule["ruleGroup"]) == place and uid not in kept
        ]
        for uid in stale:  # a PUT replaces the whole group
            del self.rules[uid]
        for rule in body["rules"]:
            number = self.rules.get(rule["uid"], {}).get("id") or self._next_id()
            self.rules[rule["uid"]] = {**rule, "id": number, "updated": "2026-01-01T00:00:00Z"}
        self.intervals[place] = body["interval"]
        return 200, body

    def _check_rule(self, rule: Json) -> None:
        steps = [step["refId"] for step in rule["data"]]
        if not _UID.fullmatch(rule["uid"]):
            raise RefusalError(400, f"invalid uid {rule['uid']}")
        if len(set(steps)) != len(steps) or rule["condition"] not in steps:
            raise RefusalError(400, f"condition {rule['condition']} is none of {steps}")
        for step in rule["data"]:
            model = step["model"]
            if step["datasourceUid"] != "__expr__":
                if step["datasourceUid"] not in self.datasources:
                    self.problems.append(f"{rule['title']}: unknown data source")
                if not step["relativeTimeRange"]["from"]:
                    raise RefusalError(400, "a query needs a relativeTimeRange")
            elif model["type"] == "threshold" and model["expression"] not in steps:
                raise RefusalError(400, f"expression {model['expression']} names no query")
        for key in ("for", "keep_firing_for"):
            if not _DURATION.fullmatch(rule[key]):
                raise RefusalError(400, f"invalid duration {rule[key]!r}")
        for other in self.rules.values():
            if other["title"] == rule["title"] and other["uid"] != rule["uid"]:
                raise RefusalError(409, f"rule title {rule['title']!r} is not unique")


def _authorized(header: str) -> bool:
    login = base64.b64encode(":".join(LOGIN).encode()).decode()
    return header in {f"Bearer {TOKEN}", f"Basic {login}"}


@contextmanager
def fake_grafana(prefix: str = "") -> Iterator[FakeGrafana]:
    """Run a Grafana below a sub-path of a loopback address."""
    grafana, description, lock = FakeGrafana(), Description(), threading.Lock()
    grafana.add_prometheus("prometheus", default=True)

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        url = urlsplit(handler.path)
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body, query = (json.loads(raw) if raw else None), parse_qs(url.query)
        path = unquote(url.path)
        call = f"{handler.command} {path}"
        grafana.calls.append(call)
        if not _authorized(handler.headers.get("Authorization", "")):
            raise RefusalError(401, "Invalid API key")
        if grafana.failures:
            raise RefusalError(grafana.failures.pop(0), "injected")
        if not path.startswith(f"{prefix}/api/"):
            raise RefusalError(404, "Not found")
        operation, names = description.operation(
            handler.command, path.removeprefix(f"{prefix}/api")
        )
        grafana.problems += [f"{call}: {p}" for p in description.problems(operation, query, body)]
        run: Callable[[Json, Json, Json], Answer] = getattr(grafana, operation["operationId"])
        return run(names, query, body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer, else Nagle's algorithm waits 40 ms

        def handle_any(self) -> None:
            try:
                with lock:
                    status, out = answer(self)
            except RefusalError as refusal:
                status, out = refusal.status, {"message": str(refusal)}
            data = json.dumps(out).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    grafana.url = f"http://127.0.0.1:{server.server_port}{prefix}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield grafana
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
