"""The web app: the page, its files, the JSON API, the probes and the metrics.

It runs inside the engine's process, which owns the store. The store is synchronous, so its
calls run in a few threads; the event loop itself never waits for a query.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from llmobs.analyzer.store.base import Owner, Row, State, Store
from llmobs.errors import ConfigurationError, StoreError
from llmobs.web.api import (
    ACTIONS,
    BY_ID,
    FILES,
    LISTS,
    OWNERS,
    Api,
    Calibrate,
    Erase,
    Ready,
    Rescore,
)
from llmobs.web.assets import Assets
from llmobs.web.encode import JsonResponse
from llmobs.web.errors import ApiError, ForbiddenError, NotFoundError
from llmobs.web.query import Query
from llmobs.web.security import HEADERS, SecurityHeaders, TokenGate

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

# Queries share the machine with ingest; more at once would only make each slower.
MAX_QUERIES: Final = 4

_T = TypeVar("_T")

PROMETHEUS_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

# Addresses that the page's own router (static/router.js) knows.
PAGES: Final = (
    "/",
    "/sessions",
    "/sessions/{id:path}",
    "/traces",
    "/traces/{id}",
    "/drift",
    "/drift/{id}",
    "/alerts",
    "/system",
)


def create_app(
    store: Store,
    state: State,
    *,
    metrics: Callable[[], bytes],
    ready: Ready,
    token: str | None = None,
    admin_token: str | None = None,
    erase: Erase | None = None,
    rescore: Rescore | None = None,
    calibrate: Calibrate | None = None,
    base_path: str = "",
    allowed_hosts: Sequence[str] = ("*",),
    clock_ns: Callable[[], int] = time.time_ns,
) -> Starlette:
    """Build the app.

    Args:
        store: Read by the API.
        state: Read by the API.
        metrics: The engine's own metrics in Prometheus' text format.
        ready: Whether the engine works, with details as JSON values; asked by ``/readyz``.
        token: Who wants data must know it; None: everyone may look.
        admin_token: Who wants to delete or to rescore must know it; None: nobody may.
        erase: Forgets a user or a session; None: another process does.
        rescore: Scores the next spans of a window again; None: another process does.
        calibrate: Finds thresholds of scores; None: nobody here does.
        base_path: What page, assets and API lie below, such as ``/llmobs`` behind a proxy.
            The probes and ``/metrics`` are always at the root.
        allowed_hosts: Names that page and API answer to. Without a token, naming them keeps
            other sites from reading through a DNS name that they point here.
        clock_ns: What the time is, in ns since 1970.

    Raises:
        ConfigurationError: `base_path` or a token can't work.
    """
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", base_path):
        raise ConfigurationError(
            f"base_path {base_path!r} must be empty or like /llmobs, without a slash at the end"
        )
    if token == "":
        raise ConfigurationError("the token is empty; give one, or None to let everyone look")
    if admin_token == "":
        raise ConfigurationError("the admin token is empty; give one, or None to let nobody delete")

    gate = TokenGate(token, f"{base_path}/") if token is not None else None
    assets = Assets(base_path)
    admin = TokenGate(admin_token, f"{base_path}/") if admin_token is not None else None
    endpoints = _Endpoints(
        Api(store, state, ready, metrics, erase, rescore, calibrate), gate, admin, clock_ns
    )

    async def page(_request: Request) -> Response:
        return assets.page()

    async def not_found(request: Request) -> Response:
        if request.method not in ("GET", "HEAD") or "/api/" in request.url.path:
            raise NotFoundError("no such address", hint=f"The API is at {base_path}/api/v1/.")
        return assets.page(404)

    async def healthz(_request: Request) -> Response:
        return JsonResponse({"ok": True})

    async def readyz(_request: Request) -> Response:
        is_ready, details = await _in_thread(ready)
        return JsonResponse({"ready": is_ready, **details}, 200 if is_ready else 503)

    async def prometheus(request: Request) -> Response:
        if gate is not None and not gate.admits(request):
            return gate.refusal()
        return PlainTextResponse(await _in_thread(metrics), media_type=PROMETHEUS_TEXT)

    below_base: list[BaseRoute] = [
        *endpoints.routes(),
        Route("/assets/{version}/{name:path}", assets.serve),
        *(Route(path, page) for path in PAGES),
        Route("/{path:path}", not_found),
    ]
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
            Mount(
                base_path,
                routes=below_base,
                middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))],
            ),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(GZipMiddleware, minimum_size=1_000),
        ],
        exception_handlers={
            ApiError: _api_error,
            StoreError: _store_error,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )


class _Endpoints:
    """Joins `Api` to HTTP: the gate, the parameters, the thread, the JSON."""

    def __init__(
        self,
        api: Api,
        gate: TokenGate | None,
        admin: TokenGate | None,
        clock_ns: Callable[[], int],
    ) -> None:
        self._api = api
        self._gate = gate
        self._admin = admin
        self._clock_ns = clock_ns
        self._limiter = anyio.CapacityLimiter(MAX_QUERIES)

    def routes(self) -> list[BaseRoute]:
        """Return the routes below ``/api/v1/``."""
        routes: list[BaseRoute] = []
        if self._gate is not None:
            routes += [
                Route("/api/v1/login", self._gate.login, methods=["POST"]),
                Route("/api/v1/logout", self._gate.logout, methods=["POST"]),
            ]
        for name, (method, known) in LISTS.items():
            routes.append(Route(f"/api/v1/{name}", partial(self._answer, method, known)))
        for name, owner in OWNERS.items():
            erase = partial(self._erase, owner)
            routes.append(Route(f"/api/v1/{name}/{{id:path}}", erase, methods=["DELETE"]))
        for name, (act, known) in ACTIONS.items():
            routes.append(
                Route(f"/api/v1/{name}", partial(self._act, act, known), methods=["POST"])
            )
        for name, (parts, known) in FILES.items():
            routes.append(Route(f"/api/v1/{name}/{{name}}", partial(self._stream, parts, known)))
        for name, by_id in BY_ID.items():
            answer = partial(self._answer, by_id, frozenset())
            routes.append(Route(f"/api/v1/{name}/{{id:path}}", answer))
        return routes

    async def _answer(
        self, method: Callable[..., Row], known: frozenset[str], request: Request
    ) -> Response:
        if self._gate is not None and not self._gate.admits(request):
            return self._gate.refusal()
        query = Query(request.query_params, known, self._clock_ns())
        ids = request.path_params.values()

        def read() -> JsonResponse:  # encoding many rows is work, too: not in the event loop
            return JsonResponse(method(self._api, query, *ids))

        return await anyio.to_thread.run_sync(read, limiter=self._limiter)

    async def _erase(self, owner: Owner, request: Request) -> Response:
        if (refusal := self._refusal(request, "delete")) is not None:
            return refusal
        Query(request.query_params, frozenset(), self._clock_ns())
        name = request.path_params["id"]
        row = await anyio.to_thread.run_sync(self._api.erase, owner, name, limiter=self._limiter)
        return JsonResponse(row)

    async def _act(
        self, method: Callable[[Api, Query], Row], known: frozenset[str], request: Request
    ) -> Response:
        if (refusal := self._refusal(request, "do this")) is not None:
            return refusal
        query = Query(request.query_params, known, self._clock_ns())
        row = await anyio.to_thread.run_sync(method, self._api, query, limiter=self._limiter)
        return JsonResponse(row)

    def _refusal(self, request: Request, wish: str) -> Response | None:
        """Return the answer to who may not change anything; None: they may."""
        if self._admin is None:
            raise ForbiddenError(f"nobody may {wish}", hint="Set admin_token on the server.")
        # A cookie alone changes nothing.
        return None if self._admin.bears(request) else self._admin.refusal()

    async def _stream(
        self, method: Callable[..., Iterator[bytes]], known: frozenset[str], request: Request
    ) -> Response:
        if self._gate is not None and not self._gate.admits(request):
            return self._gate.refusal()
        query = Query(request.query_params, known, self._clock_ns())
        name = request.path_params["name"]
        parts = await anyio.to_thread.run_sync(
            method, self._api, query, name, limiter=self._limiter
        )
        # The next piece is made when the client has taken the one before.
        return StreamingResponse(
            parts,
            media_type="application/vnd.apache.parquet",
            headers={
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="{name}"',
                "Content-Encoding": "identity",  # it is packed already
            },
        )


async def _in_thread(function: Callable[[], _T]) -> _T:
    return await anyio.to_thread.run_sync(function)


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JsonResponse({"error": str(error), "hint": error.hint}, error.status)


async def _store_error(_request: Request, error: Exception) -> Response:
    logger.error("store failed a query", exc_info=error)
    return JsonResponse(
        {"error": "the store failed", "hint": "Try again; the server's log has the reason."}, 503
    )


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = "See the API's addresses in the documentation."
    return JsonResponse({"error": error.detail, "hint": hint}, error.status_code)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # Starlette answers this outside of all middleware, then raises again for the server's log.
    response = JsonResponse(
        {"error": "something failed here", "hint": "The server's log has the reason."}, 500
    )
    response.headers.update(HEADERS)
    return response
