"""Ask an OpenAI-compatible endpoint, with nothing but the standard library.

The key comes from the environment alone; no message and no record shows it.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_ftloop.core.bounds import MOST_BYTES_OF_RECORD, read_json
from pytest_ftloop.core.errors import ConfigError, EndpointError, Location

KEY = "FTLOOP_API_KEY"
"""The environment variable with the endpoint's key. Not that of one provider: its key must not go
to whatever URL is given."""

TRIES = 4
"""Requests until an endpoint that is busy or does not answer counts as failed."""

FIRST_PAUSE_S = 1.0
"""Seconds before the second try; the pause doubles each time, 7 s in all."""

LONGEST_PAUSE_S = 60.0
"""The most seconds that an endpoint's Retry-After is followed."""

TIMEOUT_S = 120.0
"""Seconds for one answer: long, since a server without a GPU may need minutes for one."""

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that are never asked through a proxy."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint by its base URL, which ends before `/chat/completions`, and a model's name.

    `key` is the environment variable with its key, `timeout_s` the time for one answer.
    """

    url: str
    model: str
    key: str = KEY
    timeout_s: float = TIMEOUT_S

    def chat(self, messages: list[Mapping[str, Any]], **more: Any) -> Json:
        """The first choice for a conversation, as the endpoint gives it."""
        return self._first_choice("chat/completions", {"messages": messages, **more})

    def complete(self, prompt: str, **more: Any) -> Json:
        """The first choice for a text to continue."""
        return self._first_choice("completions", {"prompt": prompt, **more})

    def _first_choice(self, path: str, body: Json) -> Json:
        answer = request(self.url, path, {"model": self.model, **body}, self.key, self.timeout_s)
        choices = answer.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            raise EndpointError(
                f"wanted an answer with choices from {path}, found {json.dumps(answer)[:80]}",
                where=Location(self.url),
            )
        return dict(choices[0])


def endpoint_at(url: str, model: str | None) -> Endpoint:
    """The endpoint at a URL. Without `model` it must serve exactly one, which is asked for."""
    url = checked_url(url)
    if model:
        return Endpoint(url, model)
    listed = request(url, "models").get("data")
    names = [str(entry.get("id")) for entry in listed] if isinstance(listed, list) else []
    if len(names) == 1:
        return Endpoint(url, names[0])
    raise EndpointError(
        f"wanted one model, found {len(names)}: {', '.join(names[:8]) or 'none'}",
        where=Location(url),
        cure="Name the one to ask: --endpoint-model NAME.",
    )


def checked_url(url: str, where: Location | None = None) -> str:
    """The base URL without a final slash. Raises `ConfigError` unless it is of http or https."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises ValueError for one that is no number
    except ValueError:
        is_web = False
    if not is_web or any(c.isspace() for c in url):
        raise ConfigError(
            f"wanted the URL of an endpoint (http://host:8000/v1), found {url!r}", where=where
        )
    if parts.username or parts.password:
        raise ConfigError(
            "the URL of an endpoint must not hold a user or a password",
            where=where,
            cure=f"Set the key in the environment variable {KEY}.",
        )
    base = url.rstrip("/")
    for path in ("/chat/completions", "/completions"):
        base = base.removesuffix(path)
    return base


def request(
    url: str, path: str, body: Json | None = None, key: str = KEY, timeout_s: float = TIMEOUT_S
) -> Json:
    """Send a request (a GET without `body`) and return the JSON object of the answer.

    A busy endpoint is asked `TRIES` times. Raises `EndpointError`.
    """
    for attempt in range(TRIES):
        try:
            return _once(url, path, body, key, timeout_s)
        except _BusyError as error:
            if attempt == TRIES - 1:
                raise EndpointError(
                    f"{error}, {TRIES} times",
                    where=Location(url),
                    cure="Run it again later, or ask for fewer at a time.",
                ) from None
            time.sleep(max(FIRST_PAUSE_S * 2**attempt, min(error.pause_s, LONGEST_PAUSE_S)))
    raise AssertionError("unreachable")


class _BusyError(Exception):
    """The same request may succeed later: after `pause_s` seconds, if the endpoint says so."""

    pause_s = 0.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: it would send the key to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Make an error of the redirect."""


def _once(url: str, path: str, body: Json | None, key: str, timeout_s: float) -> Json:
    where = Location(url)
    try:
        with _opener(url).open(_request(url, path, body, key), timeout=timeout_s) as answer:
            text = answer.read(MOST_BYTES_OF_RECORD)
    except urllib.error.HTTPError as error:
        raise _refused(error, where, path, key) from None
    except TimeoutError:
        raise _BusyError(f"no answer within {timeout_s:g} s") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _BusyError(f"no answer within {timeout_s:g} s") from None
        raise EndpointError(
            f"the endpoint can't be reached: {error.reason}",
            where=where,
            cure="Is the server running, and is this its URL?",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _BusyError(f"the connection broke: {error or type(error).__name__}") from None
    try:
        found = read_json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EndpointError(
            f"wanted a JSON object from {path}, found {text[:60].decode(errors='replace')!r}",
            where=where,
            cure="Is it the URL of an OpenAI-compatible endpoint? It mostly ends in /v1.",
        )
    return found


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if urlsplit(url).hostname in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _request(url: str, path: str, body: Json | None, key: str) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    if secret := _secret(key):
        headers["Authorization"] = f"Bearer {secret}"
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(f"{url}/{path}", data, headers)


def _secret(key: str) -> str:
    return os.environ.get(key, "").strip()


def _refused(error: urllib.error.HTTPError, where: Location, path: str, key: str) -> Exception:
    """What to raise for a status other than 200."""
    words = _words_of(error.read(2000), key)
    if error.code in BUSY:
        busy = _BusyError(f"status {error.code}{words}")
        with suppress(ValueError):  # it may be a date, or absent
            busy.pause_s = float(error.headers.get("Retry-After", ""))
        return busy
    cure = {
        401: f"Set the key in the environment variable {key}.",
        403: f"Set the key in the environment variable {key}.",
        404: f"Does it serve {path}, and the model of this name? The URL mostly ends in /v1.",
    }.get(error.code, "")
    return EndpointError(f"status {error.code}{words}", where=where, cure=cure)


def _words_of(body: bytes, key: str) -> str:
    """The endpoint's own words about an error, in a line that follows the status."""
    text = body.decode(errors="replace")
    try:
        found = read_json(text)
        inner = found.get("error", found)
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, AttributeError):
        pass
    # Some servers repeat the key that they refuse.
    if secret := _secret(key):
        text = text.replace(secret, "...")
    line = " ".join(text.split())[:120]
    return f": {line}" if line else ""
