"""A training script's settings, read from its text without running it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pytest_ftloop.config import known_arguments
from pytest_ftloop.config.arguments import mistakes
from pytest_ftloop.config.script_calls import GIVEN_AS, POSITIONS, Script, dotted_name
from pytest_ftloop.core.credentials import HIDDEN, hidden, is_credential, is_credential_name
from pytest_ftloop.core.errors import ConfigError, Location

NEW_NAMES = {
    "evaluation_strategy": "eval_strategy",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    "max_seq_length": "max_length",
    "no_cuda": "use_cpu",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "use_liger": "use_liger_kernel",
    "warmup_ratio": "warmup_steps",
}
"""Old arguments of SFTConfig whose value is kept under a new name."""

OF_THE_LOOP = frozenset({"output_dir", "task_type", "logging_steps", "logging_dir"})
"""Arguments that a loop sets or does without: they are left out without a word."""

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class Left:
    """What a script states and the loop file does not: its line, what it is, and why."""

    line: int
    what: str
    why: str


@dataclass
class FromScript:
    """What was read of a script, and what was left out."""

    model: str = ""
    lora: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)


class _UnreadableError(Exception):
    """A value that is not taken from the script's text; the message says why."""


def from_script(text: str, file: str) -> FromScript:
    """The settings of a script. Raises `ConfigError` if it is not Python, or states none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        where = Location(file, getattr(error, "lineno", None))
        raise ConfigError(f"not Python: {getattr(error, 'msg', error)}", where=where) from None
    reader = _Reader(tree)
    try:
        reader.read()
    except RecursionError:
        raise ConfigError("a name depends on itself", where=Location(file)) from None
    if not any(kind in ("lora", "training", "trainer") for kind, _ in reader.calls):
        others = f", only {', '.join(reader.script.others)}" if reader.script.others else ""
        raise ConfigError(
            f"found no LoraConfig, SFTConfig or SFTTrainer{others}",
            where=Location(file),
            cure="A loop trains with trl's SFTTrainer."
            if others
            else "Name the script that makes them.",
        )
    return reader.found


class _Reader:
    """Reads the values that a script states."""

    def __init__(self, tree: ast.Module) -> None:
        self.found = FromScript()
        self.script = Script(tree)
        for node, base in self.script.own:
            what = f"class {node.name}({ast.unparse(base)})"
            self._leave(node, what, "what the class changes is not taken")
        self.calls: list[tuple[str, ast.Call]] = []

    def read(self) -> None:
        """Read every call that states something, then what is assigned to its result."""
        for kind, call, others in self.script.taken(self._named_arguments):
            self.calls.append((kind, call))
            for other in others:
                why = f"another one is taken, that of line {call.lineno}"
                self._leave(other, ast.unparse(other.func), why)
        for kind, call in self.calls:
            if kind in ("lora", "training"):
                self._settings(kind, call)
            elif kind == "model":
                self._model(call)
            elif kind == "trainer":
                self._trainer(call)
        for node in self.script.changed:
            self._assigned(node)
        self.found.left = sorted(dict.fromkeys(self.found.left), key=lambda left: left.line)

    def _settings(self, group: str, call: ast.Call) -> None:
        if self.script.called(call.func).endswith("TrainingArguments"):
            why = "a loop takes SFTConfig, whose learning_rate is 2e-5 if none is stated, not 5e-5"
            self._leave(call, "TrainingArguments", f"{why}, and which checkpoints activations")
        for name, node in self._named_arguments(group, call):
            self._set(group, name, node)
        for node in call.args[len(POSITIONS.get(group, ())) :]:
            self._leave(node, ast.unparse(node), "an argument without its name")

    def _named_arguments(self, kind: str, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
        """The arguments of a call by name, those that are given without one too."""
        yield from zip(POSITIONS.get(kind, ()), call.args, strict=False)
        yield from self._arguments(call)

    def _arguments(self, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
        """The keyword arguments of a call, those of `**name` too."""
        for keyword in call.keywords:
            if keyword.arg is not None:
                yield keyword.arg, keyword.value
                continue
            try:
                yield from self._dict(keyword.value)
            except _UnreadableError as error:
                self._leave(keyword.value, f"**{ast.unparse(keyword.value)}", str(error))

    def _dict(self, node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
        """The keys of a dict, each with its expression."""
        if isinstance(node, ast.Name):
            node = self._once(node)
        if isinstance(node, ast.Call) and dotted_name(node.func) == "dict" and not node.args:
            yield from self._arguments(node)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    yield from self._dict(value)
                else:
                    yield str(self._value(key)), value
        else:
            raise _UnreadableError("not a dict that is written out")

    def _set(self, group: str, name: str, node: ast.expr) -> None:
        if name in OF_THE_LOOP:
            return
        if name == "report_to":
            if ast.unparse(node) not in ("'none'", "None", "[]"):
                why = "the improvement log has every run; state it to report there as well"
                self._leave(node, _shown(name, node), why)
            return
        try:
            value = self._plain(name, node)
        except _UnreadableError as error:
            self._leave(node, _shown(name, node), str(error))
            return
        if group == "training":
            if name == "group_by_length":
                name, value = "train_sampling_strategy", "group_by_length" if value else "random"
            name = NEW_NAMES.get(name, name)
        table = {"lora": known_arguments.Lora, "training": known_arguments.Training}[group]
        wrong = next(mistakes({name: value}, group, get_type_hints(table), lambda _: None), None)
        if wrong is not None:
            self._leave(node, _shown(name, node), wrong.message)
            return
        getattr(self.found, group)[name] = value

    def _model(self, call: ast.Call) -> None:
        if call.args and not self.found.model:
            self._named(call.args[0])
        kwargs = {}
        for name, node in self._arguments(call):
            if name == "pretrained_model_name_or_path":
                self._named(node)
                continue
            try:
                kwargs["dtype" if name == "torch_dtype" else name] = self._plain(name, node)
            except _UnreadableError as error:
                self._leave(node, _shown(name, node), str(error))
        kwargs.pop("device_map", None)
        if kwargs:
            self.found.training.setdefault("model_init_kwargs", {}).update(kwargs)

    def _named(self, node: ast.expr) -> None:
        try:
            self.found.model = str(self._value(node))
        except _UnreadableError as error:
            self._leave(node, f"the model {ast.unparse(node)}", str(error))

    def _trainer(self, call: ast.Call) -> None:
        read = {GIVEN_AS[kind] for kind, _ in self.calls if kind in GIVEN_AS}
        for name, node in self._named_arguments("trainer", call):
            if isinstance(node, ast.Constant) and node.value is None:
                continue
            if name in ("train_dataset", "eval_dataset"):
                self._data(name.partition("_")[0], node)
            elif name == "model" and not self.found.model:
                if not isinstance(node, ast.Name) or not self._is_model(node):
                    self._named(node)
            elif name in ("args", "peft_config") and name not in read:
                self._leave(
                    node, f"{name}={ast.unparse(node)}", "its arguments are not stated here"
                )
            elif name not in ("model", "args", "peft_config", "processing_class", "tokenizer"):
                self._leave(node, f"{name}={ast.unparse(node)}", "a loop has no such key")

    def _is_model(self, name: ast.Name) -> bool:
        return any(isinstance(v, ast.Call) for v in self.script.names.get(name.id, ()))

    def _data(self, role: str, node: ast.expr) -> None:
        try:
            source, split = self._source(node, role)
        except _UnreadableError as error:
            self._leave(node, f"{role}_dataset={ast.unparse(node)}", str(error))
            return
        if split:
            self.found.data["split"] = split
        if not (split and role == "eval"):
            self.found.data[role] = source

    def _source(self, node: ast.expr, role: str) -> tuple[Any, dict[str, Any]]:
        """The file or hub id that rows are loaded from, and how an eval set is split off."""
        part = ""
        if isinstance(node, ast.Subscript):
            part, node = str(self._value(node.slice)), node.value
        if isinstance(node, ast.Name):
            node = self._once(node)
            if isinstance(node, ast.Subscript):
                return self._source(node, role)
        if not isinstance(node, ast.Call):
            raise _UnreadableError("not loaded by load_dataset")
        name = dotted_name(node.func)
        method = name.rpartition(".")[2]
        if method == "train_test_split" and isinstance(node.func, ast.Attribute):
            stated = {k: self._value(v) for k, v in self._arguments(node)}
            source, _ = self._source(node.func.value, "train")
            fraction = stated.get("test_size", 0.25)
            if not isinstance(fraction, float):
                raise _UnreadableError(f"test_size={fraction} is a number of rows, not a share")
            return source, {"fraction": fraction, "seed": stated.get("seed") or 0}
        if method in ("map", "filter", "select", "shuffle", "rename_column", "remove_columns"):
            raise _UnreadableError(
                f"its rows are changed by .{method}(): move that to a function and name it, "
                f"data: {{{role}: module:function}}"
            )
        if method != "load_dataset":
            raise _UnreadableError("not loaded by load_dataset")
        return self._loaded(node, part or role), {}

    def _loaded(self, call: ast.Call, part: str) -> Any:
        stated = {k: self._value(v) for k, v in self._arguments(call)}
        first = str(self._value(call.args[0])) if call.args else str(stated.get("path", ""))
        part = str(stated.get("split") or part)
        if "[" in part:
            raise _UnreadableError(f"split={part!r} takes a part of the rows")
        if first not in ("json", "csv", "parquet"):
            name = self._value(call.args[1]) if len(call.args) > 1 else stated.get("name")
            return {"hub": first, "split": part, **({"name": name} if name else {})}
        files = stated.get("data_files")
        if isinstance(files, dict):
            files = files.get(part) or files.get({"eval": "test"}.get(part, part))
        if isinstance(files, list) and len(files) == 1:
            files = files[0]
        if not isinstance(files, str):
            raise _UnreadableError(f"data_files={files!r} is not one file")
        return files

    def _assigned(self, node: ast.Assign | ast.AugAssign) -> None:
        """`args.learning_rate = 1e-4`, of a name that is one of the configs."""
        target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
        if not (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)):
            return
        made = self.script.names.get(target.value.id, [])
        for kind, call in self.calls:
            if call in made and kind in ("lora", "training") and isinstance(node, ast.AugAssign):
                getattr(self.found, kind).pop(target.attr, None)
                self._leave(node, ast.unparse(node), "it depends on the value before")
            elif call in made and kind in ("lora", "training"):
                self._set(kind, target.attr, node.value)
            elif call in made and kind == "tokenizer" and target.attr != "padding_side":
                why = "name it by training.chat_template_path, a .jinja file"
                why = why if target.attr == "chat_template" else "it belongs under tokenizer"
                self._leave(node, ast.unparse(node), why)

    def _leave(self, node: ast.AST, what: str, why: str) -> None:
        self.found.left.append(Left(getattr(node, "lineno", 0), " ".join(what.split())[:80], why))

    def _once(self, node: ast.Name) -> ast.expr:
        found, lines = self.script.names.get(node.id, []), self.script.bound.get(node.id, [])
        if not lines:
            raise _UnreadableError(f"{node.id} is not assigned in this script")
        if len(lines) > 1:
            shown = " and ".join(map(str, sorted(lines)))
            raise _UnreadableError(f"{node.id} is assigned in lines {shown}")
        if not found:  # by a loop, or with others
            raise _UnreadableError(f"{node.id} gets its value only in a run")
        return found[0]

    def _plain(self, name: str, node: ast.expr) -> Any:
        """The value of an argument that is no credential: a loop file is committed."""
        value = self._value(node)
        if is_credential(name, value):
            raise _UnreadableError("a credential is not copied: set HF_TOKEN, or log in to the hub")
        return value

    def _value(self, node: ast.expr, depth: int = 0) -> Any:
        """The value of an expression that needs no run."""
        if depth > 40:
            raise _UnreadableError("a name depends on itself")

        def inner(part: ast.expr) -> Any:
            return self._value(part, depth + 1)

        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
            return node.value
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [inner(item) for item in node.elts]
        called = dotted_name(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Dict) or called == "dict":
            return {key: inner(value) for key, value in self._dict(node)}
        if isinstance(node, ast.Name):
            return inner(self._once(node))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -inner(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            try:
                return _OPERATORS[type(node.op)](inner(node.left), inner(node.right))
            except (TypeError, ArithmeticError) as error:
                raise _UnreadableError(str(error)) from None
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.FormattedValue) else p for p in node.values]
            return "".join(str(inner(part)) for part in parts)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, depth)
        if isinstance(node, ast.Call) and called.endswith("BitsAndBytesConfig"):
            return {key: inner(value) for key, value in self._arguments(node)}
        what = "a call" if isinstance(node, ast.Call) else "an expression"
        raise _UnreadableError(f"{what}, whose value only a run gives")

    def _attribute(self, node: ast.Attribute, depth: int) -> Any:
        if isinstance(node.value, ast.Name) and self.script.called(node.value) == "torch":
            return node.attr
        if node.attr in self.script.options:
            default = self.script.options[node.attr]
            if default is None:
                raise _UnreadableError(f"the option --{node.attr} has no default")
            return self._value(default, depth + 1)
        raise _UnreadableError(f"{ast.unparse(node)} is not stated in this script")


def _shown(name: str, node: ast.expr) -> str:
    """An argument as the script states it, without a credential."""
    return f"{name}={HIDDEN if is_credential_name(name) else hidden(ast.unparse(node))}"
