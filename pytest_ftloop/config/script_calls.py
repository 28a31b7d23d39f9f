"""Which calls of a training script state its settings, found in its text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

KINDS = {
    "LoraConfig": "lora",
    "SFTConfig": "training",
    "TrainingArguments": "training",
    "SFTTrainer": "trainer",
    "AutoModelForCausalLM.from_pretrained": "model",
    "AutoTokenizer.from_pretrained": "tokenizer",
}
"""The calls that are read, by what they state."""

POSITIONS = {
    "training": ("output_dir",),
    "trainer": (
        *("model", "args", "data_collator", "train_dataset", "eval_dataset"),
        "processing_class",
    ),
}
"""The names of arguments that may be given without them, in their order in trl."""

GIVEN_AS = {"lora": "peft_config", "training": "args", "model": "model"}
"""The argument of the trainer that each kind of call is given as."""


class Script:
    """The calls of one script that state something, and its names.

    `names` are the values by name; `bound` the lines that assign a name in any way; `options` the
    defaults of options and of a dataclass's fields; `changed` what is assigned to attributes;
    `others` trainers of other kinds; `own` classes made of trl's, each with its base.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.names: dict[str, list[ast.expr]] = {}
        self.bound: dict[str, list[int]] = {}
        self.options: dict[str, ast.expr | None] = {}
        self.calls: list[tuple[str, ast.Call]] = []
        self.changed: list[ast.Assign | ast.AugAssign] = []
        self.others: dict[str, None] = {}
        self.own: list[tuple[ast.ClassDef, ast.expr]] = []
        self._called_as: dict[str, str] = {}  # what a name of this script stands for elsewhere
        for node in ast.walk(tree):
            self._note_name(node)
        for node in ast.walk(tree):
            self._note(node)

    def _note_name(self, node: ast.AST) -> None:
        """`import torch as t`, `from trl import SFTConfig as Config`, `Config = trl.SFTConfig`."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._called_as |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute):
            if _kind(self.called(node.value)) is not None:
                named = [t.id for t in node.targets if isinstance(t, ast.Name)]
                self._called_as |= dict.fromkeys(named, self.called(node.value))
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if _kind(self.called(base)) is not None:
                    self._called_as[node.name] = self.called(base)
                    self.own.append((node, base))

    def called(self, node: ast.expr) -> str:
        """The dotted name of what is called, by its own name where the script gives it another."""
        first, dot, rest = dotted_name(node).partition(".")
        seen: set[str] = set()
        while first in self._called_as and first not in seen:
            seen.add(first)
            first = self._called_as[first]
        return f"{first}{dot}{rest}"

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self.names.setdefault(target.id, []).append(node.value)
                elif isinstance(target, ast.Attribute):
                    self.changed.append(node)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            self.changed.append(node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.bound.setdefault(node.id, []).append(node.lineno)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self.names.setdefault(node.target.id, []).append(node.value)
            self.options[node.target.id] = node.value  # also a dataclass's default
        elif isinstance(node, ast.Call):
            name = self.called(node.func)
            if name == "add_argument" or name.endswith(".add_argument"):
                self._note_option(node)
            if (kind := _kind(name)) is not None:
                self.calls.append((kind, node))
            elif name.endswith("Trainer"):
                self.others[name.rpartition(".")[2]] = None

    def _note_option(self, call: ast.Call) -> None:
        flags = [a.value for a in call.args if isinstance(a, ast.Constant)]
        long = next((str(f) for f in flags if str(f).startswith("--")), "")
        default = next((k.value for k in call.keywords if k.arg == "default"), None)
        if long:
            self.options[long.lstrip("-").replace("-", "_")] = default

    def taken(
        self, named: Callable[[str, ast.Call], Iterable[tuple[str, ast.expr]]]
    ) -> Iterator[tuple[str, ast.Call, list[ast.Call]]]:
        """One call of each kind, the trainer last, and its others: a script may train twice.

        It is what the first trainer is given. `named` gives a call's arguments by name.
        """
        calls = sorted(self.calls, key=lambda it: (it[0] == "trainer", it[1].lineno))
        trainer = next((call for kind, call in calls if kind == "trainer"), None)
        given = dict(named("trainer", trainer)) if trainer else {}
        for kind in dict.fromkeys(kind for kind, _ in calls):
            of_kind = [call for other, call in calls if other == kind]
            node = given.get(GIVEN_AS.get(kind, ""))
            made = self.names.get(node.id, []) if isinstance(node, ast.Name) else [node]
            taken = next((call for call in of_kind if call in made), of_kind[0])
            if kind == "tokenizer":  # only what is assigned to one is read
                yield from ((kind, call, []) for call in of_kind)
            else:
                yield kind, taken, [call for call in of_kind if call is not taken]


def _kind(name: str) -> str | None:
    """What a call of this dotted name states."""
    return next((k for n, k in KINDS.items() if name == n or name.endswith(f".{n}")), None)


def dotted_name(node: ast.expr) -> str:
    """The dotted name of what is called."""
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
