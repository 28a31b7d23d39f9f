"""Tool calls that are not plain JSON, in the formats that chat templates write.

Each reader takes time in proportion to the text: an output may be anything, and of any length.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.evaluate.json_values import until_last, value_at, values_and_texts


@dataclass(frozen=True)
class Call:
    """A tool call. The arguments of one `in_tags` are texts, whatever their type."""

    name: str
    arguments: Any
    in_tags: bool = False


_FUNCTION = re.compile(r"<function=([^<>\s]+)\s*>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^<>\s]+)\s*>(.*?)</parameter>", re.DOTALL)

_INVOKE = re.compile(r'<atem:invoke name="([^"<>]+)">(.*?)</atem:invoke>', re.DOTALL)
_INVOKED_WITH = re.compile(r'<atem:parameter name="([^"<>]+)">(.*?)</atem:parameter>', re.DOTALL)

_TOOL_CALL = re.compile(r'<tool_call>\s*([^\s<>{}\[\]"]+)(.*?)</tool_call>', re.DOTALL)
_KEY_AND_VALUE = re.compile(
    r"<arg_key>([^<>\n]*)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL
)

_BEGINS, _SEPARATES, _ENDS = (
    f"<\uff5c{what}\uff5c>" for what in ("tool▁call▁begin", "tool▁sep", "tool▁call▁end")
)

_RECIPIENT = re.compile(
    r"to=functions\.([^\s<>]{1,256})\s*(?:<\|(?:channel|constrain)\|>[^<]*){0,4}<\|message\|>\s*"
)
"""Name and marks have a limit: each opening would be searched to the end of the text."""

_OPEN, _CLOSE, _QUOTE = "<|tool_call>call:", "<tool_call|>", '<|"|>'
_BARE_KEY = re.compile(r'([{,]\s*)([^\s{}\[\],:<>"][^{}\[\],:<>"]*):')
_BARE_NONE = re.compile(r"\bNone\b")

_LISTED = re.compile(r"(?:<\|tool_call_start\|>|\A)\s*\[\s*(?=[\w.-]+\()")
_BUILT_IN = re.compile(r"<\|python_tag\|>\s*(?=[\w.-]+\.call\()")
_FUNCTION_NAME = re.compile(r"[\s,]*([\w.-]+)\(")
_ARGUMENT_NAME = re.compile(r"[\s,]*([^\s,()=]+)\s*=\s*")
_ENDS_A_STRING = re.compile(r"\s*[,)\]}:]")
_PART = re.compile(r"[^\"'()\[\]{},]+|.", re.DOTALL)


def formatted_calls(text: str) -> list[Call]:
    """The tool calls that a text has in one of the formats, in order; none of plain JSON."""
    return next((calls for read in FORMATS if (calls := list(read(text)))), [])


def _functions(text: str) -> Iterator[Call]:
    """`<function=f><parameter=a>1</parameter></function>`: Qwen3-Coder, Nemotron."""
    for name, body in until_last(_FUNCTION, text, "</function>"):
        yield Call(name, dict(until_last(_PARAMETER, body, "</parameter>")), in_tags=True)


def _invoked(text: str) -> Iterator[Call]:
    """`<atem:invoke name="f"><atem:parameter name="a">1</atem:parameter></atem:invoke>`."""
    for name, body in until_last(_INVOKE, text, "</atem:invoke>"):
        yield Call(name, dict(until_last(_INVOKED_WITH, body, "</atem:parameter>")), in_tags=True)


def _keys_and_values(text: str) -> Iterator[Call]:
    """`<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>`: GLM-4.5."""
    for name, body in until_last(_TOOL_CALL, text, "</tool_call>"):
        pairs = until_last(_KEY_AND_VALUE, body, "</arg_value>")
        if pairs or not body.strip():  # other words are not a call
            yield Call(name, dict(pairs), in_tags=True)


def _separated(text: str) -> Iterator[Call]:
    """The name after a separator and JSON after the name, or the name before it: DeepSeek."""
    for part in text.split(_BEGINS)[1:]:
        before, separator, after = part.partition(_ENDS)[0].partition(_SEPARATES)
        values, words = values_and_texts(after)
        if not separator or len(values) != 1:
            continue
        is_named_first = before.strip() != "function"
        name = before if is_named_first else words[0].removesuffix("```json")
        yield Call(name.strip(), values[0])


def _addressed(text: str) -> Iterator[Call]:
    """`to=functions.f<|channel|>commentary json<|message|>{"a": 1}`: gpt-oss."""
    for found in _RECIPIENT.finditer(text):
        with suppress(ValueError, RecursionError):
            yield Call(found[1], value_at(text, found.end())[0])


def _bare(text: str) -> Iterator[Call]:
    """`<|tool_call>call:f{a:1,b:<|"|>x<|"|>}<tool_call|>`, with keys that are bare: Gemma 4."""
    for part in text.split(_OPEN)[1:]:
        name, brace, body = part.partition(_CLOSE)[0].partition("{")
        pieces = (brace + body).split(_QUOTE)
        for i, piece in enumerate(pieces):
            if i % 2:
                pieces[i] = json.dumps(piece)
            else:
                pieces[i] = _BARE_NONE.sub("null", _BARE_KEY.sub(_with_quotes, piece))
        with suppress(ValueError):
            yield Call(name.strip(), read_json("".join(pieces)))


def _with_quotes(found: re.Match[str]) -> str:
    return f"{found[1]}{json.dumps(found[2].rstrip())}:"


def _listed(text: str) -> Iterator[Call]:
    """`<|tool_call_start|>[f(a=1, b='x'), g()]<|tool_call_end|>`, as in Python: LFM2."""
    start = 0
    while found := _LISTED.search(text, start):
        start = found.end()
        while named := _FUNCTION_NAME.match(text, start):
            arguments, start = _keywords(text, named.end())
            yield Call(named[1], {key: _python_value(value) for key, value in arguments.items()})


def _built_in(text: str) -> Iterator[Call]:
    """`<|python_tag|>f.call(a="1")`, whose arguments are all texts: Llama 3.1."""
    start = 0
    while found := _BUILT_IN.search(text, start):
        start = found.end()
        if named := _FUNCTION_NAME.match(text, start):
            arguments, start = _keywords(text, named.end())
            texts = {key: _without_quotes(value) for key, value in arguments.items()}
            yield Call(named[1].removesuffix(".call"), texts, in_tags=True)


FORMATS: tuple[Callable[[str], Iterator[Call]], ...] = (
    _functions,
    _invoked,
    _keys_and_values,
    _separated,
    _addressed,
    _bare,
    _listed,
    _built_in,
)
"""Each reads the calls of one format, none of another's."""


def _keywords(text: str, start: int) -> tuple[Mapping[str, str], int]:
    """The arguments from here to the closing bracket, as they are written, and where that ends."""
    found: dict[str, str] = {}
    while named := _ARGUMENT_NAME.match(text, start):
        start = _end_of_value(text, named.end())
        found[named[1]] = text[named.end() : start].strip()
    closing = text.find(")", start)
    return found, closing + 1 if closing >= 0 else len(text)


def _end_of_value(text: str, start: int) -> int:
    """Where an argument's value ends: at a comma or bracket outside of strings and brackets.

    A quote closes a string only where something can follow it: some templates escape none.
    """
    depth, quote, previous = 0, "", ""
    for part in _PART.finditer(text, start):
        said = part[0]
        if quote:
            if said == quote and not _escapes(previous) and _ENDS_A_STRING.match(text, part.end()):
                quote = ""
        elif said in "\"'":
            quote = said
        elif said in "([{":
            depth += 1
        elif depth == 0 and said in ",)]}":
            return part.start()
        elif said in ")]}":
            depth -= 1
        previous = said
    return len(text)


def _escapes(text: str) -> bool:
    """Whether a text ends in a backslash that escapes what follows: two are one of the text."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _python_value(text: str) -> Any:
    """A value in JSON or as in Python; else its text, without quotes."""
    with suppress(ValueError):
        return read_json(text)
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return ast.literal_eval(text)
    return _without_quotes(text)


def _without_quotes(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]
    return text[1:-1] if is_quoted else text
