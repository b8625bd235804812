"""Who may look, and what a browser may do with what it gets."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmobs.web.encode import JsonResponse
from llmobs.web.errors import ApiError

__all__ = ["HEADERS", "SecurityHeaders", "TokenGate"]

COOKIE: Final = "llmobs_session"
COOKIE_MAX_AGE_S: Final = 30 * 86_400
MAX_LOGIN_BYTES: Final = 4_096

# Prompts are somebody else's text. Even if one got into the page as HTML, it could load,
# run and send nothing: everything comes from here, and no script stands in the page.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class SecurityHeaders:
    """Middleware that puts `HEADERS` on every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the app does, with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class TokenGate:
    """Lets those in who know the token: as a bearer, or by the cookie of an earlier login.

    Args:
        token: The shared secret.
        cookie_path: Where the cookie is sent.
    """

    def __init__(self, token: str, cookie_path: str) -> None:
        self._token = token.encode()
        self._cookie_path = cookie_path
        # The cookie proves the token without holding it: who steals one can't call as a bearer,
        # and a new token ends every session.
        self._cookie = hmac.new(self._token, COOKIE.encode(), hashlib.sha256).hexdigest()

    def admits(self, connection: HTTPConnection) -> bool:
        """Return whether the caller has shown the token."""
        if self.bears(connection):
            return True
        cookie = connection.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def bears(self, connection: HTTPConnection) -> bool:
        """Return whether the caller has shown it as a bearer: no browser does so by itself."""
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._is_token(bearer.strip())

    def refusal(self) -> Response:
        """Return the 401."""
        response = JsonResponse(
            {
                "error": "a token is needed",
                "hint": "Send 'Authorization: Bearer TOKEN', or open the page and sign in.",
            },
            401,
        )
        response.headers["WWW-Authenticate"] = 'Bearer realm="llmobs"'
        return response

    async def login(self, request: Request) -> Response:
        """Take ``{"token": …}`` and set the cookie."""
        body = await _small_body(request)
        try:
            token = json.loads(body)["token"]
        except (ValueError, KeyError, TypeError):
            token = None
        if not (isinstance(token, str) and self._is_token(token)):
            return self.refusal()
        response = JsonResponse({"ok": True})
        response.set_cookie(
            COOKIE,
            self._cookie,
            max_age=COOKIE_MAX_AGE_S,
            path=self._cookie_path,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, _request: Request) -> Response:
        """Take the cookie away."""
        response = JsonResponse({"ok": True})
        response.delete_cookie(COOKIE, path=self._cookie_path, httponly=True, samesite="strict")
        return response

    def _is_token(self, candidate: str) -> bool:
        # JSON can hold half a surrogate pair, which has no plain UTF-8.
        return hmac.compare_digest(candidate.encode(errors="surrogatepass"), self._token)


class _TooLargeError(ApiError):
    status = 413


async def _small_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_LOGIN_BYTES:
            raise _TooLargeError("the body is too large", hint=f"At most {MAX_LOGIN_BYTES} bytes.")
    return body
