"""What an endpoint is asked, and what is said of one that can't be used."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_ftloop.core import endpoint as asking
from pytest_ftloop.core.endpoint import KEY, TRIES, Endpoint, checked_url, endpoint_at
from pytest_ftloop.core.errors import ConfigError, EndpointError
from tests.endpoints import Reply, completion, endpoint, message, models

SECRET = "sk-do-not-show"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries, and no key unless a test sets one."""
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.0)
    monkeypatch.delenv(KEY, raising=False)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host/v1/completions", "https://host/v1"),
    ],
)
def test_base_url(given: str, wanted: str) -> None:
    """A final slash, or the path of one request, is not part of the base URL."""
    assert wanted == checked_url(given)


@pytest.mark.parametrize(
    "given", ["", "host:8000/v1", "file:///etc/passwd", "ftp://host/v1", "http://", "http://h:x/v1",
              "http://a b/v1"],
)  # fmt: skip
def test_no_url(given: str) -> None:
    """Anything but a URL of http or https is refused, with what was found."""
    with pytest.raises(ConfigError, match="wanted the URL of an endpoint") as caught:
        checked_url(given)
    assert repr(given) in str(caught.value)


def test_password_in_the_url() -> None:
    """A password in the URL is refused and not repeated: it would be printed and logged."""
    with pytest.raises(ConfigError) as caught:
        checked_url(f"https://me:{SECRET}@host/v1")
    assert SECRET not in str(caught.value)
    assert KEY in str(caught.value)


def test_requests() -> None:
    """Chat and completion are asked by their paths, with the model's name and what is given."""
    with endpoint(lambda path, _: message("hi") if "chat" in path else completion("ho")) as served:
        asked = Endpoint(served.url, "tuned")
        said = [{"role": "user", "content": "q"}]
        assert "hi" == asked.chat(said, temperature=0)["message"]["content"]
        assert "ho" == asked.complete("q", max_tokens=3)["text"]
    assert [
        ("chat/completions", {"model": "tuned", "messages": said, "temperature": 0}),
        ("completions", {"model": "tuned", "prompt": "q", "max_tokens": 3}),
    ] == [(path, body) for path, body, _ in served.asked]
    assert all("Authorization" not in headers for *_, headers in served.asked)


def test_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is sent as a bearer token; white space around it is not part of it."""
    monkeypatch.setenv(KEY, f"{SECRET}\n")
    with endpoint(lambda *_: completion("ho")) as served:
        Endpoint(served.url, "m").complete("q")
    assert f"Bearer {SECRET}" == served.asked[0][2]["Authorization"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((401, {"error": {"message": f"bad key {SECRET}"}}), "status 401: bad key ...\n  Set the"),
        ((404, {"error": "no such model"}), "status 404: no such model\n  Does it serve compl"),
        ((400, "<html>bad\nrequest"), "status 400: <html>bad request"),
        ((302, "http://127.0.0.1:9/"), "status 302"),
        ((200, "<html>"), "wanted a JSON object from completions, found '<html>'"),
        ((200, [1]), "wanted a JSON object"),
        ((200, {"choices": []}), "wanted an answer with choices from completions"),
        ((200, {"choices": "ab"}), "wanted an answer with choices"),
        ((503, {"error": {"message": "loading"}}), f"status 503: loading, {TRIES} times"),
    ],
)  # fmt: skip
def test_faulty_endpoint(reply: Reply, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one error with the URL, the endpoint's own words, and never the key."""
    monkeypatch.setenv(KEY, SECRET)
    with endpoint(lambda *_: reply) as served, pytest.raises(EndpointError) as caught:
        Endpoint(served.url, "m").complete("q")
    assert str(caught.value).startswith(f"{served.url}: {said}")
    assert SECRET not in str(caught.value)


def test_busy_endpoint_is_asked_again() -> None:
    """A status that passes is no error."""
    replies = [(429, {}), (500, {}), completion("ho")]
    with endpoint(lambda *_: replies.pop(0)) as served:
        assert "ho" == Endpoint(served.url, "m").complete("q")["text"]
    assert 3 == len(served.asked)


@pytest.mark.parametrize(
    ("stated", "pauses"),
    [
        ("3", [3.0, 3.0, 4.0]),
        ("0", [1.0, 2.0, 4.0]),
        ("9999", [60.0, 60.0, 60.0]),
        ("-1", [1.0, 2.0, 4.0]),
        ("nan", [1.0, 2.0, 4.0]),
        ("Wed, 21 Oct 2026 07:28:00 GMT", [1.0, 2.0, 4.0]),
    ],
)
def test_the_pause_that_a_busy_endpoint_asks_for(
    stated: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Retry-After in seconds, up to a minute, where that is longer than the usual pause."""
    slept: list[float] = []
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(asking.time, "sleep", slept.append)
    with (
        endpoint(lambda *_: (429, "slow down"), {"Retry-After": stated}) as served,
        pytest.raises(EndpointError, match="status 429: slow down, 4 times\n  Run it again later"),
    ):
        Endpoint(served.url, "m").complete("p")
    assert pauses == slept


def test_no_server() -> None:
    """A port that nothing listens on is one error, with what to look at."""
    with endpoint(lambda *_: completion("")) as served:
        url = served.url
    with pytest.raises(EndpointError, match=r"can't be reached: .*refused") as caught:
        Endpoint(url, "m").complete("q")
    assert "Is the server running" in caught.value.cure


@pytest.mark.parametrize(
    ("names", "said"), [((), "wanted one model, found 0: none"), (("a", "b"), "found 2: a, b")]
)
def test_model_must_be_clear(names: tuple[str, ...], said: str) -> None:
    """Without a name the endpoint must serve one model."""
    with endpoint(lambda *_: models(*names)) as served, pytest.raises(EndpointError) as caught:
        endpoint_at(served.url, None)
    assert said in str(caught.value)
    assert "--endpoint-model" in caught.value.cure


def test_only_model_is_taken() -> None:
    """The one model that is served is asked; a stated name is not looked up."""

    def refuse(*_: Any) -> Reply:
        return 500, {}

    with endpoint(lambda *_: models("tuned")) as served:
        assert "tuned" == endpoint_at(served.url, None).model
    with endpoint(refuse) as served:
        assert "mine" == endpoint_at(served.url, "mine").model
    assert [] == served.asked
