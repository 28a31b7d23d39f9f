"""`--json` of five commands: one list in the shapes that `ftloop schema --output` prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pytest_ftloop.cli import main
from pytest_ftloop.report.as_json.shapes import output_schema
from tests.cli.cli_cases import Capture
from tests.loops import WORSE, Loops

Ask = Callable[..., tuple[int, str, str]]

SCHEMA = Draft202012Validator(output_schema())

COMMANDS = {
    "run": ["run", "--replay"],
    "gate": ["gate"],
    "diff": ["diff"],
    "show": ["show", "best"],
    "suggest": ["suggest"],
}
"""The commands that have `--json`, so that none of them trains."""


def trained(loops: Loops) -> None:
    loops.version(gates="{eval_loss: '<= 9', regression: {}}")


def up_to_date(loops: Loops) -> None:
    """Nothing changed since the commit."""
    trained(loops)


def regressed(loops: Loops) -> None:
    """A threshold and the regression gate fail."""
    trained(loops)
    loops.write(rate=WORSE, gates="{eval_loss: '<= 1', regression: {}}")
    loops.train()


def several_iterations(loops: Loops) -> None:
    """The loop adjusted its settings, and stopped."""
    loops.version(loop="{iterations: 3}", gates="{eval_loss: '<= 0.1'}")


def not_a_number(loops: Loops) -> None:
    """The figures are NaN."""
    trained(loops)
    loops.write(rate=WORSE, gates="{eval_loss: '<= 9'}")
    loops.train()


def other_rows(loops: Loops) -> None:
    """Rows were relabelled, edited, removed and added."""
    trained(loops)
    rows = [
        {"id": "e0", "prompt": "what is 0?", "completion": " another"},
        {"id": "e1", "prompt": "other\x1b[31m", "completion": " \u202eanswer"},
        {"id": "new", "prompt": "::error::", "completion": " ##[group]"},
    ]
    loops.put("eval.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    loops.train()


def a_broken_loop_file(loops: Loops) -> None:
    """One loop can't be read, another can."""
    trained(loops)
    loops.put("a.ftloop.yaml", "data: 3\n")


def out_of_date(loops: Loops) -> None:
    """The log lacks what the loop file asks for."""
    trained(loops)
    loops.write(rate=WORSE)


def nothing(loops: Loops) -> None:
    """There is neither loop nor log."""
    loops.put("readme", "")
    loops.commit()


SITUATIONS = (
    *(up_to_date, regressed, several_iterations, not_a_number, other_rows),
    *(a_broken_loop_file, out_of_date, nothing),
)


@pytest.fixture
def ask(capsys: Capture) -> Ask:
    """Run a command; its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda made: made.__name__)
def test_every_output_has_the_documented_shape(
    loops: Loops, ask: Ask, situation: Callable[[Loops], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One list in the schema, of plain ASCII; exit code and errors are those without --json."""
    if situation is not_a_number:
        monkeypatch.setenv("FAKE_NOISE", "nan")
    situation(loops)
    for command, arguments in COMMANDS.items():
        plain_code, _, plain_err = ask(*arguments)
        code, out, err = ask(*arguments, "--json")
        assert (plain_code, plain_err) == (code, err), command
        items = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        SCHEMA.validate(items)
        assert [command] * len(items) == [item["command"] for item in items]
        assert code == max((item["exit_code"] for item in items), default=0)
        assert all(item["error"] in err for item in items if item["error"])
        assert out.isascii()
        assert out.replace("\n", "").isprintable()


def test_the_schema_allows_no_other_key() -> None:
    """A key that is not documented, or one that is missing, is seen by the test above."""
    item: dict[str, Any] = {
        "schema": 1, "command": "gate", "loop": None, "source": "x", "exit_code": 2, "error": "no"
    }  # fmt: skip
    assert SCHEMA.is_valid([item])
    assert not SCHEMA.is_valid([{**item, "more": 1}])
    assert not SCHEMA.is_valid([{key: value for key, value in item.items() if key != "loop"}])


def test_schema_is_printed(ask: Ask) -> None:
    """`ftloop schema --output` prints the schema that the outputs are tested by."""
    code, out, err = ask("schema", "--output")
    assert (0, "") == (code, err)
    assert output_schema() == json.loads(out)
    Draft202012Validator.check_schema(json.loads(out))


def test_run_says_what_it_trained(loops: Loops, ask: Ask) -> None:
    """`ftloop run --json` trains as without it; stdout has the list alone, files included."""
    loops.write(loop="{iterations: 2}", gates="{eval_loss: '<= 0.1'}")
    code, out, _ = ask("run", "--json")
    (item,) = json.loads(out)
    assert (1, "x", "x.ftloop.yaml") == (code, item["loop"], item["source"])
    assert [True, True] == [row["trained"] for row in item["iterations"]]
    assert [("eval_loss <= 0.1", False)] == [(g["gate"], g["passed"]) for g in item["gates"]]
    assert item["next"]
    assert all(name.startswith("improvement_log/x") for name in item["files"])
    (item,) = json.loads(ask("run", "--json")[1])
    assert [False, False] == [row["trained"] for row in item["iterations"]]


def test_interrupted(loops: Loops, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the loops that were done are still printed."""
    from pytest_ftloop.loop.loop import Loop

    for name in "xy":
        loops.write(name)
    run = Loop.run

    def until_y(self: Loop) -> Any:
        if self.config.name == "y":
            raise KeyboardInterrupt
        return run(self)

    monkeypatch.setattr(Loop, "run", until_y)
    code, out, _ = ask("run", "--json")
    assert (130, ["x"]) == (code, [item["loop"] for item in json.loads(out)])


def test_run_has_no_verbosity_with_json(loops: Loops, capsys: Capture) -> None:
    """--json prints everything: with -v or -q it is a mistake in usage."""
    with pytest.raises(SystemExit) as caught:
        main(["run", "--json", "-v"])
    assert 2 == caught.value.code
