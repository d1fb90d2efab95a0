"""Who may ask the studio for something: whoever has the token, from its own page, by its own name."""

import hmac
import ipaddress
import socket
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self'; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A redirect from a link elsewhere would come without the cookie, which is SameSite=Strict; this does not.
ENTERED = (
    '<!doctype html><html lang="en"><meta http-equiv="refresh" content="0;url=/">'
    '<link rel="icon" href="data:,"><title>nst studio</title>'
)
CLOSED = "This studio opens with the address that nst-studio printed: it has a token in it.\n"
YEAR_SECONDS = 365 * 24 * 3600


class Guard:
    """Lets a request through only with the token, a Host that cannot be a stranger's, and no other Origin."""

    def __init__(self, app: ASGIApp, token: str, host: str, port: int):
        self.app, self.token, self.host = app, token, host
        self.cookie = f"nst-studio-{port}"  # cookies do not know ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the studio answer; with the headers that a browser is to heed."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self.refuse(scope)
        await (refusal or self.app)(scope, receive, answer)

    def refuse(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not the page's own, None for one that is."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.is_own(host):
            return PlainTextResponse("This is not a name of the studio.\n", 421)
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return PlainTextResponse("Only the studio's own page may ask.\n", 403)
        entering = scope["method"] == "GET" and scope["path"] == "/"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not entering:
            return PlainTextResponse("Only the studio's own page may ask.\n", 403)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if entering and self.is_token(given):
            response = HTMLResponse(ENTERED)
            response.set_cookie(
                self.cookie, self.token, max_age=YEAR_SECONDS, httponly=True, samesite="strict", path="/"
            )
            return response
        if not self.is_token(cookie_parser(headers.get("cookie", "")).get(self.cookie, "")):
            return PlainTextResponse(CLOSED, 401)
        return None

    def is_token(self, text: str) -> bool:
        """Tell whether a text is the token, in the same time for all of them."""
        return hmac.compare_digest(text.encode(), self.token.encode())

    def is_own(self, host: str) -> bool:
        """Tell whether a Host is this machine's: a name that somebody points at it later is not."""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        name = (name if port.isdecimal() else host).strip("[]").lower()
        if name in ("localhost", self.host.lower(), socket.gethostname().lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
