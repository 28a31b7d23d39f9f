"""`ftloop export --check-endpoint`: a served model's answers against the log, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.core import endpoint as asking
from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.workspace import find_logs
from tests.endpoints import Reply, completion, endpoint, message, models
from tests.fakes import fake_example, fake_iteration

Capture = pytest.CaptureFixture[str]

ANSWERS = {f"question {n}": f"answer {n}" for n in range(10)}
"""The expected answers, of which the logged model gives all but that of question 0."""


def served(path: str, body: Any) -> Reply:
    """A server of the logged model."""
    if path == "models":
        return models("tuned")
    if path == "completions":
        return completion(f" {logged(body['prompt'])}\n")
    return message(logged(body["messages"][-1]["content"]))


def logged(prompt: str) -> str:
    return "other" if prompt == "question 0" else ANSWERS[prompt]


def silent(path: str, _: Any) -> Reply:
    """A server whose model says nothing."""
    if path == "models":
        return models("tuned")
    return completion("") if path == "completions" else message("")


def row(prompt: str, answer: str, form: str) -> dict[str, Any]:
    if form == "prompt":
        return {"id": prompt, "prompt": prompt, "completion": f" {answer}"}
    said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": prompt, "messages": said}


Make = Callable[..., None]


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a loop with one logged iteration into the working folder; no adapter is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.0)
    monkeypatch.delenv(asking.KEY, raising=False)

    def make(
        form: str = "prompt", scoring: str = "{scorer: exact}", guards: str = "", **changes: Any
    ) -> None:
        lines = [json.dumps(row(prompt, answer, form)) for prompt, answer in ANSWERS.items()]
        for role in ("train", "eval"):
            Path(f"{role}.jsonl").write_text("\n".join(lines))
        Path("topic.ftloop.yaml").write_text(
            f"model: tiny\ndata: {{train: train.jsonl, eval: eval.jsonl, {guards}}}\n"
            f"scoring: {scoring}\n"
        )
        (found,) = find_logs(Path("topic.ftloop.yaml"), None, print)
        assert found.config is not None
        inputs = Inputs.of(found.config, lambda *_: True)
        fingerprint = inputs.fingerprint(found.config, found.config.settings)
        examples = [result(e, **changes) for e in inputs.eval.examples]
        data = {"train": {"rows": 10}, "eval": {"rows": 10}}
        iteration = fake_iteration(1, loop="topic", examples=examples, data=data)
        of_guards = {
            guard.name: [
                replace(fake_example(e.id), content=e.content, output="nothing", expected="other")
                for e in guard.rows.examples
            ]
            for guard in inputs.guards
        }
        iteration = replace(iteration, guards=of_guards)
        iteration = replace(
            iteration, model=inputs.model, fingerprint=fingerprint, id=fingerprint[:8]
        )
        ImprovementLog(Path("improvement_log/topic")).append(iteration)

    return make


def result(example: Any, **changes: Any) -> ExampleResult:
    """The logged result of an eval example."""
    prompt = example.id
    fields = {"expected": ANSWERS[prompt], "output": logged(prompt), "content": example.content}
    return fake_example(prompt, **{"passed": prompt != "question 0"} | fields | changes)


def test_guards_are_checked(loop: Make, capsys: Capture) -> None:
    """The rows of a guard have a line of their own, and fail the check like those of the eval set.

    A guard that is scored by its loss is passed over: an endpoint gives only text.
    """
    lines = [json.dumps(row(prompt, answer, "prompt")) for prompt, answer in ANSWERS.items()]
    Path("guard.jsonl").write_text("\n".join(lines[:4]))
    Path("other.jsonl").write_text('{"text": "some text"}\n')
    loop(guards="guards: {general: guard.jsonl, texts: other.jsonl}")
    with endpoint(served) as at:
        assert 1 == check(at.url)
    first, second = (li for li in capsys.readouterr().out.splitlines() if "endpoint" in li)
    assert first.startswith(f"endpoint (tuned at {at.url}): ok: 10 examples")
    assert second.startswith(f"endpoint, guard general (tuned at {at.url}): FAILED: ")
    assert "4 of 4 outputs differ" in second


def check(url: str, *more: str) -> int:
    return main(["export", "--check-endpoint", url, *more])


@pytest.mark.parametrize("form", ["prompt", "messages"])
def test_endpoint_as_logged(loop: Make, form: str, capsys: Capture) -> None:
    """Equal answers hold in one line; nothing is written, and prompts and limits are sent."""
    loop(form)
    with endpoint(served) as at:
        assert 0 == check(at.url), capsys.readouterr()
    (line,) = capsys.readouterr().out.splitlines()
    assert (
        f"endpoint (tuned at {at.url}): ok: 10 examples as logged: 0 flipped (tolerance 5%), "
        "0 outputs changed" == line
    )
    assert [] == list(Path().glob("topic-*"))
    bodies = [body for path, body, _ in at.asked if path != "models"]
    assert 10 == len(bodies)
    assert {(0, "tuned")} == {(body["temperature"], body["model"]) for body in bodies}
    asked = {b["prompt"] if form == "prompt" else b["messages"][0]["content"] for b in bodies}
    assert set(ANSWERS) == asked
    assert all(len(body.get("messages", [0])) == 1 for body in bodies), "the answer is not sent"


def test_flips_are_listed(loop: Make, capsys: Capture) -> None:
    """Another model fails with exit code 1; id, expected text and both outputs are listed."""
    loop()

    def other(path: str, body: Any) -> Reply:
        flipped = {"question 0": "answer 0", "question 3": "so"}
        prompt = body and body["prompt"]
        return completion(flipped[prompt]) if prompt in flipped else served(path, body)

    with endpoint(other) as at:
        assert 1 == check(at.url)
        line, _, *rows = capsys.readouterr().out.splitlines()
        assert "FAILED: 2 of 10 examples flipped (tolerance 5%)" in line
        assert [
            ["question", "0", "passes", '"answer', '0"', '"other"', '"answer', '0"'],
            ["question", "3", "fails", '"answer', '3"', '"answer', '3"', '"so"'],
        ] == [found.split() for found in rows]
        assert 0 == check(at.url, "--tolerance", "20%")


def test_silent_model_is_found_where_nothing_passed(loop: Make, capsys: Capture) -> None:
    """Where no logged example passes none can flip: other outputs fail then."""
    loop(output="wrong", passed=False)
    with endpoint(silent) as at:
        assert 1 == check(at.url)
    assert "10 of 10 outputs differ" in capsys.readouterr().out


def test_output_that_was_cut(loop: Make, capsys: Capture) -> None:
    """An output longer than any expected text was cut at the limit: a longer answer is no other."""
    loop(output="and so on and so on", passed=False)

    def longer(path: str, body: Any) -> Reply:
        return models("m") if path == "models" else completion("and so on and so on and on")

    with endpoint(longer) as at:
        assert 0 == check(at.url)
    assert "0 outputs changed" in capsys.readouterr().out


def test_answer_that_does_not_end(loop: Make, capsys: Capture) -> None:
    """An answer that goes on after the logged one is another: the end token is not the model's."""
    loop()

    def longer(path: str, body: Any) -> Reply:
        return models("m") if path == "models" else completion(f"{logged(body['prompt'])} and on")

    with endpoint(longer) as at:
        assert 1 == check(at.url)
    assert "9 of 10 examples flipped" in capsys.readouterr().out


def test_changed_eval_set(loop: Make, capsys: Capture) -> None:
    """Examples that only the log or only the eval set has are not compared, and counted."""
    loop()
    lines = Path("eval.jsonl").read_text().splitlines()
    new = json.dumps(row("question 99", "answer 99", "prompt"))
    Path("eval.jsonl").write_text("\n".join([*lines[2:], new]))
    with endpoint(served) as at:
        assert 0 == check(at.url)
    note, line = capsys.readouterr().out.splitlines()
    wanted = "note: compared are the 8 examples that log and eval set share; 2 are only in the log"
    assert note.startswith(wanted)
    assert "ok: 8 examples" in line


def test_changed_scorer_scores_both(loop: Make, capsys: Capture) -> None:
    """The logged outputs are scored by the loop file's scorer too: a changed one is no flip."""
    loop()
    file = Path("topic.ftloop.yaml")
    file.write_text(file.read_text().replace("{scorer: exact}", "{scorer: regex, pattern: other}"))
    with endpoint(served) as at:
        assert 0 == check(at.url)
    assert "0 flipped" in capsys.readouterr().out


def test_hook_compares_outputs(loop: Make, capsys: Capture) -> None:
    """pytest's hook can't be called here: an example passes if its output is the logged one."""
    loop(scoring="{scorer: hook}")
    with endpoint(served) as at:
        assert 0 == check(at.url)
    with endpoint(silent) as at:
        assert 1 == check(at.url)
    out = capsys.readouterr().out
    assert "note: the scorer hook needs pytest" in out
    assert "10 of 10 examples flipped" in out


BAD = [
    (["--check-endpoint", "host/v1"], "wanted the URL of an endpoint"),
    (["--tolerance", "0.1"], "--tolerance is for --check and --check-endpoint"),
    (["--loss-tolerance", "0"], "--loss-tolerance is for --check"),
    (["--endpoint-model", "m"], "--endpoint-model is for --check-endpoint URL"),
    (["--check-endpoint", "http://h/v1", "--merged"], "--merged needs --check"),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_option(loop: Make, options: list[str], said: str, capsys: Capture) -> None:
    """A wrong option, or one without effect, is one error and exit code 2."""
    loop()
    assert 2 == main(["export", *options])
    assert said in capsys.readouterr().err
    assert [] == list(Path().glob("topic-*"))


@pytest.mark.parametrize("value", ["x", "-0.1", "1.5", "101%", "nan", "%"])
def test_bad_share(value: str, capsys: Capture) -> None:
    """A tolerance that is no share of the examples is refused with what was found."""
    with pytest.raises(SystemExit):
        main(["export", "--check", f"--tolerance={value}"])
    assert f"wanted a share such as 0.02 or 2%, found '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["x", "-1", "inf", "nan"])
def test_bad_nats(value: str, capsys: Capture) -> None:
    """A tolerance that is no loss is refused with what was found."""
    with pytest.raises(SystemExit):
        main(["export", "--check", f"--loss-tolerance={value}"])
    assert f"wanted nats per token, 0 or more, found '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "scoring", ["{scorer: choice}", "{scorer: loss, threshold: 1.0}"], ids=["choice", "loss"]
)
def test_scorer_without_text(loop: Make, scoring: str, capsys: Capture) -> None:
    """A scorer of probabilities has nothing to read from an endpoint."""
    loop(scoring=scoring)
    with endpoint(served) as at:
        assert 2 == check(at.url)
    assert "an endpoint gives only text" in capsys.readouterr().err


def test_no_loop_file(loop: Make, capsys: Capture) -> None:
    """Without a loop file there is no eval set and no scorer: one error."""
    loop()
    Path("topic.ftloop.yaml").unlink()
    assert 2 == check("http://localhost:9/v1")
    assert "--check needs the loop file" in capsys.readouterr().err


def test_nothing_in_common(loop: Make, capsys: Capture) -> None:
    """An eval set of other rows is one error with its line in the loop file."""
    loop()
    Path("eval.jsonl").write_text(json.dumps(row("new", "row", "prompt")))
    assert 2 == check("http://localhost:9/v1")
    assert "no example of iteration 001-" in capsys.readouterr().err


def test_needs_no_torch(loop: Make) -> None:
    """An endpoint is checked without torch, transformers, peft and numpy."""
    loop()
    script = (
        "import sys\n"
        "from pytest_ftloop.cli import main\n"
        "code = main(['export', '--check-endpoint', sys.argv[1]])\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    with endpoint(served) as at:
        command = [sys.executable, "-c", script, at.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
