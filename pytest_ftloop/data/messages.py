"""Messages of a chat: checked, from ShareGPT's keys, without the nulls that Arrow adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_ftloop.core.errors import DataError, Location

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""The role that templates know for a `from` of ShareGPT. trl only renames the keys: a template then
renders `human` and `gpt`, or nothing, and asks for an `assistant` at inference."""


def chatml(conversation: Any, where: Location) -> Any:
    """ShareGPT's `from` and `value` as role and content; other conversations as they are."""
    if not isinstance(conversation, Sequence) or not any(
        isinstance(turn, Mapping) and "from" in turn for turn in conversation
    ):
        return conversation
    return [_turn(turn, where) for turn in conversation]


def _turn(turn: Any, where: Location) -> dict[str, Any]:
    if not isinstance(turn, Mapping) or not {"from", "value"} <= set(turn):
        raise DataError(
            f'wanted turns {{"from", "value"}} in conversations, found {turn!r:.80}', where=where
        )
    role = SHAREGPT_ROLES.get(str(turn["from"]).lower())
    if role is None:
        raise DataError(
            f"a turn of conversations is from {turn['from']!r}, which is no known role",
            where=where,
            cure=f"Known are {', '.join(SHAREGPT_ROLES)}. Or give messages with role and content.",
        )
    rest = {key: value for key, value in turn.items() if key not in {"from", "value"}}
    return {"role": role, "content": turn["value"], **rest}


def check_messages(value: Any, name: str, where: Location) -> None:
    """Raise `DataError` unless it is a list of messages, each with a role and what is said."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataError(
            f"wanted a list of messages in {name}, found {type(value).__name__}", where=where
        )
    if not value:
        raise DataError(f"{name} is an empty list", where=where)
    for message in value:
        says = isinstance(message, Mapping) and ("content" in message or "tool_calls" in message)
        if not says or "role" not in message:
            raise DataError(
                f'wanted messages {{"role", "content"}} in {name}, found {message!r:.80}',
                where=where,
            )


def without_nulls(value: Any) -> Any:
    """Messages without the null keys that Arrow adds; a null `content` is kept."""
    if not (isinstance(value, list) and value and isinstance(value[0], Mapping)):
        return value
    if not all("role" in message for message in value):
        return value
    return [{k: v for k, v in m.items() if v is not None or k == "content"} for m in value]
