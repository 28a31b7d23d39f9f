"""Answers of a served model to the eval examples, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.chat import content_text, said, split
from pytest_ftloop.core.endpoint import Endpoint
from pytest_ftloop.core.errors import EndpointError, Location
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.records import Example

AT_ONCE = 8
"""Requests at a time: a server batches them."""


def answers_of(
    endpoint: Endpoint, examples: Sequence[Example], max_tokens: int, progress: Progress
) -> tuple[str, ...]:
    """The greedy answer to each example, in order."""
    found: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(answer_of, endpoint, example, max_tokens) for example in examples]
        try:
            for job in jobs:
                found.append(job.result())
                progress.working("asking the endpoint", len(found), len(examples))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            progress.done()
    return tuple(found)


def answer_of(endpoint: Endpoint, example: Example, max_tokens: int) -> str:
    """The greedy answer to one example: chat for messages, else the continuation of its prompt."""
    given, _ = split(example.row)
    how: dict[str, Any] = {"temperature": 0, "max_tokens": max_tokens}
    if isinstance(given, str):
        choice = endpoint.complete(given, **how)
        text = choice.get("text")
    else:
        for name in ("tools", "chat_template_kwargs"):
            if value := example.row.get(name):
                how[name] = read_json(value) if isinstance(value, str) else value
        choice = endpoint.chat(list(given), **how)
        text = _said(choice.get("message"))
    if not isinstance(text, str):
        raise EndpointError(
            f"wanted a text as the answer to example {example.id!r}, found {str(choice)[:80]}",
            where=Location(endpoint.url),
        )
    return text.strip()


def _said(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return None
    if message.get("tool_calls"):
        return said(message)
    return content_text(message.get("content"))
