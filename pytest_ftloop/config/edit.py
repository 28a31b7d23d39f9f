"""Other settings in the text of a loop file, with all else in it left byte for byte.

The YAML library only tells where things stand; the text itself is spliced, one small edit at a
time, until the file says what it should. What comes out is read again before it is handed back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from pytest_ftloop.config.loop_yaml import unwrapped
from pytest_ftloop.config.sections import DEFAULT_LORA, DEFAULT_TRAINING
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location
from pytest_ftloop.core.records import Settings

_DEFAULTS = {"lora": DEFAULT_LORA, "training": DEFAULT_TRAINING}
"""What a loop trains with that lacks the section."""


def with_settings(text: str, settings: Settings, where: str) -> str:
    """A loop file's text with `lora:` and `training:` changed to state exactly `settings`.

    `where` is the file as errors show it. A value that is equal as it stands (2e-4 and 0.0002) is
    left as written, and so is a section that is missing where the tool's defaults are wanted.
    Raises `ConfigError` where anchors, aliases or merge keys would have to be taken apart.
    """
    wanted = {group: _plain(getattr(settings, group)) for group in _DEFAULTS}
    mark, body = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    before = _values(body, where)
    if not isinstance(before, dict):
        raise ConfigError("wanted a loop's keys (data, training, ...)", where=Location(where, 1))
    try:
        after = _edited(body, before, wanted, where)
        _check(before, _values(after, where), wanted)
    except (_CanNotEdit, ConfigError) as problem:
        raise _by_hand(body, before, wanted, where, problem) from problem
    return mark + after


def changes(before: Settings, after: Settings) -> tuple[tuple[str, Any, Any], ...]:
    """Each setting that differs: its dotted name, and from what to what (`None`: not stated)."""
    return tuple(
        (f"{group}.{name}", old.get(name), new.get(name))
        for group in _DEFAULTS
        for old, new in [(getattr(before, group), getattr(after, group))]
        for name in {**old, **new}
        if (name in old) != (name in new) or not _same(old[name], new[name])
    )


class _CanNotEdit(Exception):  # noqa: N818 - never leaves this module
    """No splice of the text does what is wanted; `line` is the place for the user's own hand."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class _Edit(NamedTuple):
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


# where things stand


@dataclass(eq=False)
class _Node:
    """A YAML value and where it stands.

    The span covers an anchor and a tag, but not the comments and blank lines after a block.
    `opened` is the place after a flow collection's bracket. `children` are a sequence's items, or
    a mapping's keys and values in turn. `target` is what an alias stands for. `lead` is what has
    to be written before a value where there is none yet.
    """

    kind: str
    start: int
    end: int
    line: int
    text: str = ""
    style: str | None = None
    flow: bool = False
    opened: int = 0
    anchor: str | None = None
    lead: str = ""
    children: list[_Node] = field(default_factory=list)
    target: _Node | None = None

    @property
    def is_block(self) -> bool:
        """Whether it is a mapping or sequence in lines of its own."""
        return self.kind in {"mapping", "sequence"} and not self.flow

    @property
    def is_unwritten(self) -> bool:
        """Whether it is a null that stands for nothing at all."""
        return self.kind == "scalar" and not (self.text or self.style or self.anchor)

    @property
    def is_merge(self) -> bool:
        """Whether it is the key that merges another mapping."""
        return self.kind == "scalar" and self.text == "<<" and not self.style

    @property
    def name(self) -> str | None:
        """The text of a key."""
        node = self.target or self
        return node.text if node.kind == "scalar" else None

    @property
    def pairs(self) -> list[tuple[_Node, _Node]]:
        """A mapping's keys with their values."""
        return list(zip(self.children[::2], self.children[1::2], strict=True))

    @property
    def entries(self) -> list[tuple[int, int]]:
        """The spans of a sequence's items, or of a mapping's keys with their values."""
        if self.kind == "sequence":
            return [(item.start, item.end) for item in self.children]
        return [(key.start, max(key.end, value.end)) for key, value in self.pairs]

    def find(self, name: str) -> tuple[_Node, _Node] | None:
        """A mapping's key of this name, with its value."""
        return next((pair for pair in self.pairs if pair[0].name == name), None)

    def walk(self) -> Iterator[_Node]:
        """It and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class _Document:
    """A text and what stands where in it. `leaves` are the spans of its scalars and aliases."""

    text: str
    root: _Node
    leaves: tuple[tuple[int, int], ...]

    def is_comment(self, at: int) -> bool:
        """Whether the `#` there begins a comment; else it is part of a value."""
        return not any(start <= at < end for start, end in self.leaves)

    def lead(self, at: int) -> str:
        """What stands before this place in its line."""
        return self.text[self.line_start(at) : at]

    def line_start(self, at: int) -> int:
        """Where the line of this place begins."""
        return max(self.text.rfind("\n", 0, at), self.text.rfind("\r", 0, at)) + 1

    def line_end(self, at: int) -> int:
        """Where the line of this place ends, before its line break."""
        found = _BREAK.search(self.text, at)
        return found.start() if found else len(self.text)

    def next_line(self, at: int) -> int:
        """Where the line after what ends here begins: a block scalar may end with its line."""
        if self.text[at - 1] in "\r\n":
            return at
        found = _BREAK.search(self.text, at)
        return found.end() if found else len(self.text)

    def is_cut_off(self, at: int) -> bool:
        """Whether this is the end of a file that does not end with a line break."""
        return at == len(self.text) and self.text[at - 1] not in "\r\n"

    def line_break(self, at: int) -> str:
        """How the line that ends here ends, or else the file's first."""
        found = _LAST_BREAK.search(self.text[:at][-2:]) or _BREAK.search(self.text)
        return found.group() if found else "\n"

    def comment_gap(self, at: int) -> tuple[int, int] | None:
        """The spaces before the comment that ends this line."""
        gaps = _GAP.finditer(self.text, at, self.line_end(at))
        return next((gap.span() for gap in gaps if self.is_comment(gap.end())), None)


_BREAK = re.compile(r"\r\n|\r|\n")
_LAST_BREAK = re.compile(r"(?:\r\n|\r|\n)\Z")
_GAP = re.compile(r" +(?=#)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FILLER = re.compile(r"(?:\s|#[^\r\n]*)*")
_REST_OF_LINE = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=[\r\n]|\Z)")
_COLON = re.compile(r"\s*:")
_DASH = re.compile(r"(?:\s|#[^\r\n]*|[&!]\S+)*-")
_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")


def _document(text: str) -> _Document:
    from ruamel.yaml import YAML

    events: Iterator[Any] = iter(YAML(typ="rt", pure=True).parse(text))
    for event in events:
        if type(event).__name__ == "DocumentStartEvent":
            break
    root = _node(next(events), events, {}, text)
    leaves = tuple((n.start, n.end) for n in root.walk() if n.kind in {"scalar", "alias"})
    return _Document(text, root, leaves)


def _node(event: Any, events: Iterator[Any], anchors: dict[str, _Node], text: str) -> _Node:
    kind = type(event).__name__.removesuffix("Event").removesuffix("Start").lower()
    node = _Node(kind, event.start_mark.index, event.end_mark.index, event.start_mark.line + 1)
    if kind == "alias":
        node.target = anchors[event.anchor]
        return node
    node.anchor = event.anchor
    if event.anchor:
        anchors[event.anchor] = node
    if kind == "scalar":
        node.text, node.style = event.value, event.style
        shown = text[node.start : node.end]
        if node.style in ("|", ">") and "+" not in shown.splitlines()[0]:
            node.end = node.start + len(shown.rstrip())
        return node
    node.flow, node.opened = bool(event.flow_style), node.end
    for inner in events:
        if type(inner).__name__ in {"MappingEndEvent", "SequenceEndEvent"}:
            break
        child = _node(inner, events, anchors, text)
        if child.is_unwritten:
            _place_unwritten(child, node, text)
        node.children.append(child)
    node.end = inner.end_mark.index if node.flow else node.children[-1].end
    return node


def _place_unwritten(child: _Node, parent: _Node, text: str) -> None:
    """Put a value that is not written where it would be: the library puts it anywhere after."""
    before = parent.children[-1].end if parent.children else parent.start
    sign = (_DASH if parent.kind == "sequence" else _COLON).match(text, before)
    child.lead = " " if sign else ": "
    child.start = child.end = sign.end() if sign else before


def _values(text: str, where: str) -> Any:
    """The file's values as `config` reads them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import RoundTripConstructor
    from ruamel.yaml.error import MarkedYAMLError

    class Constructor(RoundTripConstructor):
        """Dates stay text, as in YAML 1.2."""

    Constructor.add_constructor(
        "tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node)
    )
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = Constructor
    try:
        return unwrapped(yaml.load(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = " ".join((error.problem or str(error)).split())
        raise ConfigError(f"not YAML: {problem}", where=Location(where, line)) from None
    except Exception as error:  # noqa: BLE001 - the YAML library raises many kinds
        reason = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"not YAML: {reason[0]}", where=Location(where, 1)) from None


# which edit is next


def _edited(text: str, before: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> str:
    """The text with one difference after another taken out of it."""
    enough = 10 + 2 * (_size(wanted) + _size({group: before.get(group) for group in wanted}))
    for _ in range(enough):
        values = _values(text, where)  # first: what it refuses, no document can be made of
        edit = _next_edit(_document(text), values, wanted)
        if edit is None:
            return text
        text = text[: edit.start] + edit.new + text[edit.end :]
    raise ConfigError("the edits come to no end", where=Location(where))


def _next_edit(document: _Document, values: Any, wanted: Mapping[str, Any]) -> _Edit | None:
    for group, default in _DEFAULTS.items():
        if _same(values.get(group, default), wanted[group]):
            continue
        pair = document.root.find(group) if document.root.kind == "mapping" else None
        if pair is None:
            return _added_section(document, group, wanted[group])
        return _changed_value(document, *pair, values[group], wanted[group])
    return None


def _added_section(document: _Document, group: str, value: Any) -> _Edit:
    """A new section: `lora` follows `data`, `training` follows `lora`."""
    root = document.root
    names = [key.name for key, _ in root.pairs]
    before = [name for name in ("lora", "data") if name in names]
    after = names.index(before[0]) if before else len(names) - 1
    return _added(document, root, f"{group}: {_written(value)}", after)


def _changed_value(document: _Document, key: _Node, value: _Node, now: Any, wanted: Any) -> _Edit:
    """The smallest edit towards `key: wanted`."""
    inside = _changed_inside(document, value, now, wanted)
    if inside is not None:
        return inside
    if value.is_block:
        return _folded(document, key, value, wanted)
    return _replaced(document, value, wanted)


def _changed_inside(document: _Document, node: _Node, now: Any, wanted: Any) -> _Edit | None:
    """An edit within a collection, or `None` where the value as a whole has to be replaced."""
    if node.flow and node.opened == node.start:  # the pair in [a: 1]
        return None
    if node.is_block and not wanted:  # {} and [] can only be written in flow style
        return None
    if node.kind == "mapping" and isinstance(wanted, dict):
        return _changed_mapping(document, node, now, wanted)
    if node.kind == "sequence" and isinstance(wanted, list):
        return _changed_sequence(document, node, now, wanted)
    return None


def _changed_mapping(
    document: _Document, node: _Node, now: dict[str, Any], wanted: dict[str, Any]
) -> _Edit:
    stated = {key.name: (key, value) for key, value in node.pairs if not key.is_merge}
    for name, value in wanted.items():
        if name in now and _same(now[name], value):
            continue
        if name in now and name in stated:
            return _changed_value(document, *stated[name], now[name], value)
        # Also one that a merge key brings in: what is stated overrides it.
        return _added(document, node, f"{_written(name)}: {_written(value)}")
    for index, (key, _) in enumerate(node.pairs):
        if not key.is_merge and key.name not in wanted:
            return _removed(document, node, index)
    extra = ", ".join(sorted(now.keys() - wanted.keys()))
    merge = next((key for key, _ in node.pairs if key.is_merge), node)
    raise _CanNotEdit(f"{extra} can't be removed, it comes from a merge key (<<)", merge.line)


def _changed_sequence(
    document: _Document, node: _Node, now: list[Any], wanted: list[Any]
) -> _Edit | None:
    """An item changed, removed, or added at the end. Any other change replaces the whole list."""
    pairs = list(zip(now, wanted, strict=False))
    at = next((i for i, pair in enumerate(pairs) if not _same(*pair)), len(pairs))
    if len(now) == len(wanted):
        item = node.children[at]
        inside = _changed_inside(document, item, now[at], wanted[at])
        return inside if inside or item.is_block else _replaced(document, item, wanted[at])
    if not node.flow and not all(_DASHED.fullmatch(document.lead(s)) for s, _ in node.entries):
        return None
    if at == len(now):
        return _added(document, node, _written(wanted[at]))
    return _removed(document, node, at) if _is_part(wanted, now) else None


_DASHED = re.compile(r" *- *")


def _is_part(few: Sequence[Any], many: Sequence[Any]) -> bool:
    """Whether `few` is `many` with items left out."""
    rest = iter(many)
    return all(any(_same(item, other) for other in rest) for item in few)


# how the text is edited


def _aligned(document: _Document, edit: _Edit) -> _Edit:
    """The same edit with the comment at the end of its line kept in its column."""
    old, gap = document.text[edit.start : edit.end], document.comment_gap(edit.end)
    if gap is None or _BREAK.search(old + edit.new):
        return edit
    width, more = gap[1] - gap[0], len(edit.new) - len(old)
    room = max(width - more, min(width, 2)) if more > 0 or _in_column(document, gap) else width
    between = document.text[edit.end : gap[0]]
    return _Edit(edit.start, gap[1], edit.new + between + " " * room)


def _in_column(document: _Document, gap: tuple[int, int]) -> bool:
    """Whether a comment stands far out, or in one column with that of the next line or the last."""
    if gap[1] - gap[0] > 3:
        return True
    lines = [line.start() for line in _LINE.finditer(document.text) if line.group()]
    here = lines.index(document.line_start(gap[1]))
    columns = [
        found[1] - line
        for line in lines[max(here - 1, 0) : here + 2]
        if (found := document.comment_gap(line))
    ]
    return columns.count(gap[1] - lines[here]) > 1


def _replaced(document: _Document, node: _Node, value: Any) -> _Edit:
    """A scalar, alias or flow collection with another value in its place; its anchor stays."""
    old = document.text[node.start : node.end].rstrip("\r\n")  # |+ has line breaks of its own
    end = node.start + len(old)
    if node.lead and (spaces := re.compile(r" +(?=[,}\]])").match(document.text, end)):
        end = spaces.end()
    return _aligned(document, _Edit(node.start, end, node.lead + _anchored(node, value, old)))


def _folded(document: _Document, key: _Node, node: _Node, value: Any) -> _Edit:
    """A block collection with a value in the line of its key in its place.

    Comments in lines of their own stay.
    """
    text = document.text
    colon = _COLON.match(text, key.end)
    if colon is None:
        raise _CanNotEdit(f"a comment parts {key.name} from its value", key.line)
    start, line_end = colon.end(), document.line_end(colon.end())
    gap = document.comment_gap(start)
    new = f" {_anchored(node, value)}"
    head = _aligned(document, _Edit(start, gap[0] if gap else line_end, new))
    body, end = document.next_line(line_end), document.next_line(node.end)
    lines = [text[line_end:body]]
    lines += [m.group() for m in _LINE.finditer(text, body, end) if _is_bare(document, m)]
    shown = head.new + text[head.end : line_end] + "".join(lines)
    return _Edit(start, end, shown.rstrip("\r\n") if document.is_cut_off(end) else shown)


def _is_bare(document: _Document, line: re.Match[str]) -> bool:
    """Whether a line holds a comment or nothing."""
    content = line.group().lstrip()
    at = line.end() - len(content)
    return not content or (content[0] == "#" and document.is_comment(at))


def _added(document: _Document, node: _Node, entry: str, after: int = -1) -> _Edit:
    """A new entry after that at an index, written as its neighbours are."""
    if node.flow:
        return _added_in_flow(document, node, entry)
    start, end = node.entries[after]
    lead = document.lead(start)
    if node.kind == "mapping":
        if not re.fullmatch(r" *(- +)*", lead):
            raise _CanNotEdit("a key is not written as key: value", node.line)
        lead = " " * len(lead)
    at = _after_deeper_comments(document, document.next_line(end), len(lead))
    line_break = document.line_break(at)
    new = f"{line_break}{lead}{entry}" if document.is_cut_off(at) else f"{lead}{entry}{line_break}"
    return _Edit(at, at, new)


def _after_deeper_comments(document: _Document, at: int, indent: int) -> int:
    """The place after comments that are indented deeper: they belong to what stands before."""
    deeper = re.compile(rf"(?:[ \t]*[\r\n]+)* {{{indent + 1},}}#[^\r\n]*(?:\r\n|\r|\n|\Z)")
    while found := deeper.match(document.text, at):
        at = found.end()
    return at


def _added_in_flow(document: _Document, node: _Node, entry: str) -> _Edit:
    text = document.text
    if not node.children:
        inside = text[node.opened : node.end - 1]
        if inside.strip():  # a comment
            return _Edit(node.opened, node.opened, f"{entry} ")
        return _aligned(document, _Edit(node.opened, node.end - 1, entry))
    start, end = node.entries[-1]
    lead = document.lead(start)
    comma = re.compile(r"[ \t]*,").match(text, end)
    rest = _REST_OF_LINE.match(text, comma.end() if comma else end)
    if lead.strip() or not rest:
        space = " " if text[end - 1] == ":" else ""  # a: and a comma would read as one key
        return _aligned(document, _Edit(end, end, f"{space}, {entry}"))
    # In a line of its own, as the one before it.
    line_break = text[rest.end() : document.next_line(rest.end())]
    if comma:
        return _Edit(rest.end(), rest.end(), f"{line_break}{lead}{entry},")
    head = _aligned(document, _Edit(end, end, ","))
    tail = text[head.end : rest.end()]
    return _Edit(end, rest.end(), f"{head.new}{tail}{line_break}{lead}{entry}")


def _removed(document: _Document, node: _Node, index: int) -> _Edit:
    """An entry taken out, with its line and the comment in it if it has the line to itself."""
    if node.flow:
        return _removed_in_flow(document, node, index)
    start, end = node.entries[index]
    lead, line_start = document.lead(start), document.line_start(start)
    last = document.next_line(end)
    if not lead.strip() or (node.kind == "sequence" and _DASHED.fullmatch(lead)):
        before = _LAST_BREAK.search(document.text[:line_start])
        if document.is_cut_off(last) and before:
            line_start = before.start()
        return _Edit(line_start, last, "")
    if re.fullmatch(r" *(- +)+", lead) and index + 1 < len(node.entries):
        return _Edit(start, node.entries[index + 1][0], "")
    raise _CanNotEdit("a key is not written as key: value", node.line)


def _removed_in_flow(document: _Document, node: _Node, index: int) -> _Edit:
    text, entries = document.text, node.entries
    start, end = entries[index]
    before = entries[index - 1][1] if index else node.opened
    own_line = not document.lead(start).strip()
    filler = _FILLER.match(text, end)
    comma = filler.end() + 1 if filler and text[filler.end()] == "," else None
    rest = _REST_OF_LINE.match(text, comma or end)
    if own_line and rest and not _BREAK.search(text, end, comma or end):
        return _Edit(document.line_start(start), document.next_line(rest.end()), "")
    if comma and index + 1 < len(entries):
        following = entries[index + 1][0]
        if _BREAK.search(text, comma, following):
            return _Edit(start - len(_trailing_spaces(text[before:start])), comma, "")
        return _aligned(document, _Edit(start, following, ""))
    if index and "#" not in text[before:start]:
        return _aligned(document, _Edit(before, end, ""))
    return _aligned(document, _Edit(start, comma or end, ""))


def _trailing_spaces(text: str) -> str:
    return text[len(text.rstrip(" ")) :]


# values as people write them


def _anchored(node: _Node, value: Any, old: str = "") -> str:
    anchor = f"&{node.anchor} " if node.anchor else ""
    return anchor + _written(value, _PROPERTIES.sub("", old, count=1))


def _written(value: Any, old: str = "") -> str:
    """A JSON value as YAML that readers of 1.1 and 1.2 read alike, in the style of the old text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(k)}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(item) for item in value) + "]"
    if isinstance(value, str):
        return _text(value, old[:1])
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return _number(value, old)
    return str(value)


def _number(value: float, old: str) -> str:
    """0.0002 or 2.0e-4: as the old number is written, else by its size."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    exact = Decimal(repr(value))
    decimal = f"{exact:f}" if "." in f"{exact:f}" else f"{exact:f}.0"
    if re.fullmatch(r"[-+]?\d*\.\d+", old):
        scientific = len(decimal) > 12
    elif re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", old):
        scientific = True
    else:
        scientific = not 1e-3 <= abs(value) < 1e6
    if not scientific or value == 0:
        return decimal
    sign, digits, _ = exact.as_tuple()
    shown = "".join(map(str, digits)).rstrip("0")
    return f"{'-' * sign}{shown[0]}.{shown[1:] or 0}e{exact.adjusted():+d}"


def _text(value: str, quote: str) -> str:
    """Plain where each reader then reads the same text; quoted if the old one was."""
    if quote not in ("'", '"') and _reads_as_itself(value):
        return value
    if quote == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, value)) + '"'


def _reads_as_itself(value: str) -> bool:
    import yaml
    from ruamel.yaml import YAML

    if not re.fullmatch(r"[\w./](?:[\w./:@+ -]*[\w./@+-])?", value) or ": " in value:
        return False
    # As a key and as a value, within brackets, which take the least.
    text, expected = f"[{{{value}: 1}}, {value}]", [{value: 1}, value]
    try:
        return bool(
            expected == yaml.safe_load(text) and expected == YAML(typ="safe", pure=True).load(text)
        )
    except Exception:  # noqa: BLE001 - whatever it reads as, it is not this text
        return False


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    if character in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\U{code:08x}"


def _plain(value: Any) -> Any:
    """Lists and dicts in place of tuples and other mappings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _size(value: Any) -> int:
    """How many values a value holds."""
    if isinstance(value, Mapping):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal as settings: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other or (one != one and other != other))  # nan is as wanted as any


# what can't be done


def _check(before: Mapping[str, Any], after: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise unless the settings are the wanted ones, and nothing else has changed."""
    for name in {**before, **after}:
        if name not in _DEFAULTS and not (
            name in before and name in after and _same(before[name], after[name])
        ):
            raise ConfigError(f"{name} would change too")
    for group, default in _DEFAULTS.items():
        if not _same(after.get(group, default), wanted[group]):
            raise ConfigError(f"{group} would not be as wanted")


def _by_hand(
    text: str,
    before: Mapping[str, Any],
    wanted: Mapping[str, Any],
    where: str,
    problem: _CanNotEdit | ConfigError,
) -> FtloopError:
    """What to do instead. How the file is written is the user's; all else is a mistake of ours."""
    cure = f"Change it by hand: {_todo(before, wanted)}."
    if isinstance(problem, _CanNotEdit):
        return ConfigError(problem.reason, where=Location(where, problem.line), cure=cure)
    shared = _shared(_document(text).root)
    if shared is not None:
        return ConfigError(
            f"&{shared.anchor} can't be changed, *{shared.anchor} uses it elsewhere",
            where=Location(where, shared.line),
            cure=cure,
        )
    return FtloopError(
        f"the settings could not be changed in this file: {problem.message}",
        where=Location(where),
        cure=cure,
    )


def _todo(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    now = {group: before.get(group, default) for group, default in _DEFAULTS.items()}
    now = {group: value if isinstance(value, dict) else {} for group, value in now.items()}
    differences = changes(Settings(**now), Settings(**wanted))
    new = {f"{group}.{name}" for group in wanted for name in wanted[group]}
    return ", ".join(
        f"{name}: {_written(value)}" if name in new else f"remove {name}"
        for name, _, value in differences
    )


def _shared(root: _Node) -> _Node | None:
    """The first value of the two sections that has a name by which another place uses it."""
    used = {id(node.target) for node in root.walk()}
    sections = [pair[1] for group in _DEFAULTS if (pair := root.find(group))]
    return next((n for s in sections for n in s.walk() if n.anchor and id(n) in used), None)
