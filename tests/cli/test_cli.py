"""The command `ftloop`: its exit codes, what it finds, and what it prints."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import COMMANDS, main
from pytest_ftloop.config.schema import loop_file_schema
from pytest_ftloop.core.records import Cost, Evaluation, Run
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop import backend as backends
from tests.fakes import fake_example, fake_iteration, fake_metrics, fake_training
from tests.loops import BETTER, WORSE, Loops
from tests.plugin.fake_runner import FakeBackend
from tests.processes import LONG_S
from tests.report.markdown_rows import rows_of

Capture = pytest.CaptureFixture[str]
Write = Callable[[str, str | bytes], Path]

LOOP = """\
data: {train: train.jsonl, eval: eval.jsonl}
gates: {eval_loss: "<= 1.0", pass_rate: ">= 50%"}
loop: {iterations: 2}
"""
TRAIN = '{"id": "t1", "prompt": "is it?", "completion": " yes"}\n'
EVAL = '{"id": "e1", "prompt": "is it so?", "completion": " yes"}\n'


@pytest.fixture
def make_loop(write: Write) -> Callable[..., Path]:
    """Write a loop file with its data; its path."""

    def make(name: str = "sentiment", text: str = LOOP, folder: str = "") -> Path:
        write(f"{folder}train.jsonl", TRAIN)
        write(f"{folder}eval.jsonl", EVAL)
        return write(f"{folder}{name}.ftloop.yaml", text)

    return make


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., ImprovementLog]:
    """Put fake iterations into the log of a loop below `tmp_path`."""

    def filled(*losses: float, loop: str = "sentiment", folder: str = "", **fields: Any) -> Any:
        log = ImprovementLog(tmp_path / folder / "improvement_log" / loop)
        for number, loss in enumerate(losses, start=1):
            examples = [fake_example("e1", passed=loss < 0.5)]
            iteration = fake_iteration(
                number, loop=loop, metrics=fake_metrics(loss), examples=examples
            )
            log.append(replace(iteration, **fields))
        return log

    return filled


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace training by a fake that gives eval_loss 0.5 and passes; notes the loops trained."""
    names: list[str] = []

    def train(self: Any, settings: Any, **_: Any) -> Run:
        names.append(self.config.name)
        self.progress.step(1, 1, 0.5)
        content = self.inputs.eval.examples[0].content
        result = fake_example("e1", content=content, loss=2.0, tokens=4)
        evaluation = Evaluation((result,), (result,), (result,), base_eval_loss=4.0)
        return Run(fake_training(), evaluation, Cost(1.0, 100, 1000), environment={})

    monkeypatch.setattr(FakeBackend, "train", train)
    monkeypatch.setattr(backends, "local", FakeBackend)
    monkeypatch.delenv("CI", raising=False)
    return names


def python(code: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)


# the whole


def test_help_has_every_command_with_an_example(capsys: Capture) -> None:
    """--help lists the commands; each command's own help shows how it is used."""
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert 0 == exited.value.code
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command.name} +{re.escape(command.help)}$", out, re.MULTILINE)
        with pytest.raises(SystemExit):
            main([command.name, "--help"])
        assert f"examples:\n  ftloop {command.name}" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    """--version is the installed distribution's."""
    assert 0 == main(["--version"])
    expected = f"pytest-ftloop {importlib.metadata.version('pytest-ftloop')}\n"
    assert expected == capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys: Capture) -> None:
    """`ftloop` alone says what there is, on stderr."""
    assert 2 == main([])
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["lgo"],
        ["run", "--iterations", "0"],
        ["run", "--iterations", "x"],
        ["run", "--retrain", "--replay"],
        ["run", "-q", "-v"],
        ["run", "--retr"],
        ["log", "--format", "html"],
        ["show"],
    ],
)
def test_usage_errors(argv: list[str], capsys: Capture) -> None:
    """What argparse refuses exits with 2 and a usage line."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    assert 2 == exited.value.code
    assert capsys.readouterr().err.startswith("usage: ftloop")


@pytest.mark.parametrize("command", [["run"], ["log"], ["show", "1"]])
def test_path_that_is_not_there(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    """A PATH that does not exist is named, in one message on stderr."""
    assert 2 == main([*command, str(tmp_path / "no")])
    assert ("", f"{tmp_path}/no: no such file or folder\n") == capsys.readouterr()


@pytest.mark.parametrize("command", [["run"], ["log"], ["show", "1"]])
def test_nothing_found(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    """A folder without loops is an error that says how to begin."""
    assert 2 == main([*command, str(tmp_path)])
    out, err = capsys.readouterr()
    assert "" == out
    assert "no loop file (*.ftloop.yaml)" in err
    assert "'ftloop init'" in err


@pytest.mark.parametrize("command", [["run"], ["log"], ["show", "1"]])
def test_broken_loop_file(command: list[str], make_loop: Any, capsys: Capture) -> None:
    """A mistake in the loop file is shown with file, line and cure, without a traceback."""
    file = make_loop(text=LOOP + "mdel: tiny\n")
    assert 2 == main([*command, str(file)])
    out, err = capsys.readouterr()
    assert "" == out
    assert f"{file}:4: unknown key 'mdel'\n  Did you mean 'model'?\n" == err


def test_our_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, make_loop: Any) -> None:
    """Only a user's mistakes are turned into messages."""
    monkeypatch.setattr(ImprovementLog, "read", lambda self: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["log", str(make_loop())])


def test_reading_a_log_imports_nothing_heavy(tmp_path: Path, fill: Any, make_loop: Any) -> None:
    """`ftloop log` and `ftloop show` need neither torch nor pandas, nor what they bring."""
    fill(0.4)
    make_loop()
    code = """
import sys
from pytest_ftloop.cli import main
assert 0 == main(["log"]) == main(["show", "1"])
heavy = {"torch", "transformers", "datasets", "pandas", "numpy", "trl", "peft", "tabulate"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = python(code, tmp_path)
    assert "HEAVY []" == done.stdout.splitlines()[-1], done.stderr


def test_module_is_the_command(tmp_path: Path) -> None:
    """`python -m pytest_ftloop` is `ftloop`, exit code included."""
    command = [sys.executable, "-m", "pytest_ftloop", "log", "no"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (2, "", "no: no such file or folder\n") == (done.returncode, done.stdout, done.stderr)


def test_reader_that_leaves(tmp_path: Path, fill: Any) -> None:
    """A broken pipe (`ftloop log | head -1`) is silent."""
    fill(*[0.5] * 30)
    command = [sys.executable, "-m", "pytest_ftloop", "log"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (141, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_interrupted(tmp_path: Path, make_loop: Any) -> None:
    """Ctrl-C is one line, after what was told of the data, and exit code 130."""
    make_loop()
    code = """
import sys, time
from pytest_ftloop.cli import main
from pytest_ftloop.loop import backend
def train(*_, **__):
    print("READY", flush=True)
    time.sleep(600)
backend.LocalBackend.train = train
sys.exit(main(["run"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert "READY\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONG_S)
    assert 130 == process.returncode
    told, _, last = err.rstrip("\n").rpartition("\n")
    assert told.startswith("ftloop sentiment: warning small-eval-set: ")
    assert last.startswith("interrupted; finished iterations are")
    assert "Traceback" not in err


def test_text_that_the_terminal_lacks(tmp_path: Path, fill: Any) -> None:
    """A terminal that is not UTF-8 gets escapes and ASCII curves, not an error."""
    fill(0.4, environment={"device": "Grüße 日本"})
    code = "import sys; from pytest_ftloop.cli import main; sys.exit(main(['show', '1']))"
    done = python(code, tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (0, "") == (done.returncode, done.stderr)
    assert r"Gr\xfc\xdfe" in done.stdout
    assert done.stdout.isascii()


# run


def test_run_trains_then_is_up_to_date(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """Gates that hold are exit code 0, each is named; the second run trains nothing."""
    file = make_loop()
    assert 0 == main(["run", str(file)])
    out, err = capsys.readouterr()
    assert "  holds   eval_loss 0.5000, wanted <= 1\n" in out
    assert "  holds   pass_rate 100.0%, wanted >= 50%\n" in out
    assert err.startswith("ftloop sentiment: warning small-eval-set: ")  # one example
    times = len(trained)
    assert times > 0
    assert 0 == main(["run", str(file)])
    assert times == len(trained)
    assert "up to date" in capsys.readouterr().out


def test_run_with_a_failed_gate(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """One failed gate is exit code 1; -q says the headline and that gate."""
    file = make_loop(text=LOOP.replace("<= 1.0", "<= 0.4"))
    assert 1 == main(["run", str(file), "-q"])
    lines = capsys.readouterr().out.splitlines()
    assert ["  FAILED eval_loss 0.5000, wanted <= 0.4"] == lines[1:]
    assert 1 == main(["run", str(file)])
    assert "  FAILED  eval_loss 0.5000, wanted <= 0.4" in capsys.readouterr().out


def test_run_without_gates(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """A loop without gates completes, and says that nothing was judged."""
    assert 0 == main(["run", str(make_loop(text=LOOP.splitlines()[0]))])
    assert "gates: none, so nothing is judged" in capsys.readouterr().out


def test_run_all_loops_of_a_folder(
    tmp_path: Path, make_loop: Any, trained: list[str], capsys: Capture
) -> None:
    """A broken loop does not keep the others from running; the exit code is the highest."""
    make_loop("good")
    make_loop("broken", text="data: 3\n", folder="a/")
    make_loop("strict", text=LOOP.replace("<= 1.0", "<= 0.4"), folder="b/")
    for skipped in (".hidden/", "node_modules/", "env/"):
        make_loop("skipped", folder=skipped)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert 2 == main(["run", str(tmp_path)])
    out, err = capsys.readouterr()
    assert {"good", "strict"} == set(trained)
    assert "3 loops: 1 with all gates holding, 1 with a failed gate, 1 with an error" in out
    assert "broken.ftloop.yaml:1: " in err
    assert "skipped" not in out + err


def test_run_takes_each_file_once(
    tmp_path: Path, make_loop: Any, trained: list[str], capsys: Capture
) -> None:
    """A file that two PATHs mean is run once."""
    file = make_loop()
    assert 0 == main(["run", str(file), str(tmp_path), "-q"])
    assert 1 == len(capsys.readouterr().out.splitlines())


def test_run_replay(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """--replay never trains: an outdated log is an error that says what to do."""
    file = make_loop()
    assert 2 == main(["run", str(file), "--replay"])
    assert "Run pytest --ftloop and commit improvement_log/." in capsys.readouterr().err
    assert [] == trained


def test_run_judges_the_regression_gate(loops: Loops, capsys: Capture) -> None:
    """A regression is exit code 1, explained; -q says it in one line. A tag's gate has its name."""
    gates = "{regression: {}, 'regression[negation]': {metrics: [eval_loss]}}"
    loops.version(gates=gates)
    loops.write(rate=WORSE, gates=gates)
    assert 1 == main(["run"])
    out = capsys.readouterr().out
    assert "\n  FAILED  regression:\n    regression: regressed against HEAD (" in out
    assert "\n  FAILED  regression[negation]:\n    regression[negation]: regressed against" in out
    assert "\n    broken examples: 3\n" in out
    assert 1 == main(["run", "-q"])
    lines = capsys.readouterr().out.splitlines()
    assert 3 == len(lines)
    assert lines[1].startswith("  FAILED regression: regressed: eval_loss 1.6800 -> 2.0000 (+0.32")
    assert lines[2].startswith("  FAILED regression[negation]: regressed: eval_loss[negation] 1.80")


def test_run_with_another_baseline(loops: Loops, capsys: Capture) -> None:
    """--baseline REF is the commit to compare with; one that is not there is 2."""
    loops.version()
    loops.version(BETTER)
    capsys.readouterr()
    assert 0 == main(["run", "--baseline", "HEAD~1"])
    assert "regression: improved against HEAD~1 (" in capsys.readouterr().out
    assert 2 == main(["run", "--baseline", "no-such"])
    assert "no commit 'no-such'" in capsys.readouterr().err


def test_run_never_retrains_the_baseline_in_a_replay(loops: Loops, capsys: Capture) -> None:
    """--replay trains nothing: together with --retrain-baseline it is 2."""
    loops.version()
    assert 2 == main(["run", "--replay", "--retrain-baseline"])
    assert "--retrain-baseline and --replay exclude each other" in capsys.readouterr().err


def test_run_retrain(make_loop: Any, trained: list[str]) -> None:
    """--retrain trains what is logged already."""
    file = make_loop()
    main(["run", str(file)])
    times = len(trained)
    assert 0 == main(["run", str(file), "--retrain"])
    assert 2 * times == len(trained)


def test_run_log_folder(tmp_path: Path, make_loop: Any, trained: list[str]) -> None:
    """--log DIR keeps the log there; `ftloop log` finds it by the same option."""
    file = make_loop(folder="loops/")
    assert 0 == main(["run", str(file), "--log", str(tmp_path / "kept")])
    assert [] != list((tmp_path / "kept" / "sentiment").glob("001-*.yaml"))
    assert not (tmp_path / "loops" / "improvement_log").exists()
    for path in (file, file.parent):
        assert 0 == main(["log", str(path), "--log", str(tmp_path / "kept")])


@pytest.mark.parametrize(("options", "trains"), [([], 1), (["--iterations", "3"], 3)])
def test_run_in_ci(
    options: list[str],
    trains: int,
    make_loop: Any,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In CI only the loop file's own settings are trained, unless a number is given."""
    file = make_loop(text=LOOP.replace("<= 1.0", "<= 0.1"))
    monkeypatch.setenv("CI", "true")
    assert 1 == main(["run", str(file), *options])
    assert trains == len(trained)


def test_run_with_pytests_hook(make_loop: Any, trained: list[str], capsys: Capture) -> None:
    """A scorer that only pytest knows is refused with the command that runs it."""
    file = make_loop(text=LOOP + "scoring: {scorer: hook}\n")
    assert 2 == main(["run", str(file)])
    err = capsys.readouterr().err
    assert err.startswith(f"{file}:4: scorer 'hook' is a pytest hook")
    assert f"Run pytest --ftloop {file}" in err
    assert [] == trained


def test_run_draws_a_line_on_a_terminal(
    make_loop: Any, trained: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live line is on stderr, only where that is a terminal, and is gone at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert 0 == main(["run", str(make_loop())])
    out, err = capsys.readouterr()
    assert "step 1/1" in err
    assert err.endswith("\r\x1b[2K")
    assert "\x1b" not in out


# log


@pytest.mark.parametrize("path", ["", "sentiment.ftloop.yaml"])
def test_log_of_a_loop(
    path: str, tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """A loop file, or the folder it is in, gives its table."""
    make_loop()
    fill(0.9, 0.4)
    assert 0 == main(["log", str(tmp_path / path)])
    lines = capsys.readouterr().out.splitlines()
    assert f"sentiment: 2 iterations in {tmp_path}/improvement_log/sentiment" == lines[0]
    assert [["1", "00000001"], ["2", "00000002"]] == [line.split()[:2] for line in lines[-2:]]


@pytest.mark.parametrize("path", ["improvement_log", "improvement_log/sentiment", ""])
def test_log_without_a_loop_file(path: str, tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A log folder, one loop's folder in it, or their parent: a loop made in Python has no file."""
    fill(0.4)
    assert 0 == main(["log", str(tmp_path / path)])
    assert capsys.readouterr().out.startswith("sentiment: 1 iteration in ")


def test_log_of_two_loops(tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture) -> None:
    """Two loops, one without a file: a table each as text, one list as JSON, one table as CSV."""
    make_loop()
    fill(0.9, 0.4)
    fill(0.7, loop="other", folder="below")
    main(["log", str(tmp_path)])
    assert ["sentiment: 2 iterations", "other: 1 iteration"] == re.findall(
        r"^\w+: \d iterations?", capsys.readouterr().out, re.MULTILINE
    )
    main(["log", str(tmp_path), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    expected = [("sentiment", 1, 0.9), ("sentiment", 2, 0.4), ("other", 1, 0.7)]
    assert expected == [(row["loop"], row["number"], row["eval_loss"]) for row in rows]
    main(["log", str(tmp_path), "--format", "csv"])
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert expected == [(r["loop"], int(r["number"]), float(r["eval_loss"])) for r in read]
    main(["log", str(tmp_path), "--format", "markdown"])
    assert 2 == [row[0] for row in rows_of(capsys.readouterr().out)].count("number")


@pytest.mark.parametrize(
    ("form", "expected"),
    [("text", "sentiment: no iterations in "), ("markdown", "sentiment: no iterations in ")],
)
def test_empty_log(form: str, expected: str, make_loop: Any, capsys: Capture) -> None:
    """A log without iterations is said in a sentence, and is no error."""
    assert 0 == main(["log", str(make_loop()), "--format", form])
    assert capsys.readouterr().out.startswith(expected)


def test_empty_log_folder(tmp_path: Path, capsys: Capture) -> None:
    """An improvement_log folder with nothing in it is an empty log."""
    (tmp_path / "improvement_log").mkdir()
    assert 0 == main(["log", str(tmp_path / "improvement_log")])
    assert "no iterations in " in capsys.readouterr().out


def test_loop_file_named_like_a_record(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """A loop file whose name begins with a number does not make its folder a log."""
    file = make_loop("2024-run")
    fill(0.4, loop="2024-run")
    assert 0 == main(["log", str(file.parent)])
    assert capsys.readouterr().out.startswith("2024-run: 1 iteration in ")


def test_empty_log_for_programs(make_loop: Any, capsys: Capture) -> None:
    """Without iterations JSON is an empty list, CSV a header."""
    file = make_loop()
    assert 0 == main(["log", str(file), "--format", "json"])
    assert [] == json.loads(capsys.readouterr().out)
    assert 0 == main(["log", str(file), "--format", "csv"])
    assert capsys.readouterr().out.startswith("loop,number,id,")


def test_damaged_log(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A damaged record is an error with its cure; the other loops are shown all the same."""
    fill(0.4)
    (damaged,) = fill(0.4, loop="bad").folder.glob("001-00000001-*.yaml")
    damaged.write_text("schema: 2\n")
    assert 2 == main(["log", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.startswith("sentiment: 1 iteration")
    assert err.startswith(f"{damaged}: damaged log file")


def test_log_beside_a_broken_loop_file(
    tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """A broken loop file in the folder is reported; its log can be read yet."""
    make_loop(text="data: 3\n")
    fill(0.4)
    assert 0 == main(["log", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.startswith("sentiment: 1 iteration")
    assert "sentiment.ftloop.yaml:1: " in err


# show


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("1", "001-00000001"),
        ("002", "002-00000002"),
        ("00000002", "002-00000002"),
        ("003-00000003", "003-00000003"),
        ("003-0", "003-00000003"),
        ("last", "003-00000003"),
        ("best", "002-00000002"),
    ],
)
def test_show_by_any_name(
    wanted: str, shown: str, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """A number, an id, a name, the start of a name, best and last mean an iteration."""
    fill(0.9, 0.4, 0.6)
    assert 0 == main(["show", wanted, str(make_loop())])
    assert capsys.readouterr().out.startswith(f"iteration {shown} of loop sentiment")


def test_show_by_the_start_of_an_id(
    tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """An unique start of an id is enough; one that is not lists the candidates."""
    fill(0.9)
    for number, id_ in ((2, "3fa9c1d2"), (3, "3fb00000")):
        fingerprint = id_ + "0" * 56
        iteration = fake_iteration(number, id=id_, fingerprint=fingerprint)
        ImprovementLog(tmp_path / "improvement_log" / "sentiment").append(iteration)
    file = str(make_loop())
    assert 0 == main(["show", "3fA", file])
    assert capsys.readouterr().out.startswith("iteration 002-3fa9c1d2")
    assert 2 == main(["show", "3f", file])
    assert "could be 2: 002-3fa9c1d2, 003-3fb00000" in capsys.readouterr().err


def test_show_unknown(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """An unknown iteration is an error that lists what there is."""
    fill(0.9, 0.4)
    assert 2 == main(["show", "7", str(make_loop())])
    expected = "no iteration '7'\n  There are 001-00000001, 002-00000002; best and last.\n"
    assert ("", expected) == capsys.readouterr()


def test_show_number_of_two(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A number that two branches, or two loops, gave is ambiguous; candidates name the loop."""
    fill(0.9)
    fill(0.9, loop="other")
    for wanted in ("1", "best"):
        assert 2 == main(["show", wanted, str(tmp_path)])
        expected = "could be 2: other/001-00000001, sentiment/001-00000001"
        assert expected in capsys.readouterr().err
    assert 0 == main(["show", "best", str(tmp_path / "improvement_log" / "other")])


def test_show_best_is_by_the_loops_metric(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """Best is by the metric that the loop file names."""
    file = make_loop(text=LOOP.replace("iterations: 2", "metric: pass_rate"))
    fill(0.9, 0.4)
    log = ImprovementLog(file.parent / "improvement_log" / "sentiment")
    log.append(fake_iteration(3, metrics=fake_metrics(0.8, pass_rate=0.9)))
    assert 0 == main(["show", "best", str(file)])
    assert capsys.readouterr().out.startswith("iteration 003-00000003")


@pytest.mark.parametrize("path", ["", "sentiment.ftloop.yaml", "improvement_log/sentiment"])
def test_show_has_prompts(
    path: str, tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """Prompts come from the loop's eval data, also when the log's folder is named."""
    fill(0.9)
    make_loop()
    assert 0 == main(["show", "1", str(tmp_path / path)])
    assert 'prompt    "is it so?"' in capsys.readouterr().out


def test_show_without_the_data(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """Data that is gone costs the prompts, nothing else."""
    fill(0.9)
    file = make_loop()
    (file.parent / "eval.jsonl").unlink()
    for wanted in ("1", "best"):
        assert 0 == main(["show", wanted, str(file)])
        out = capsys.readouterr().out
        assert 'actual    "no"' in out
        assert "prompt" not in out


# schema


def test_schema_is_printed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One JSON document of draft 2020-12; without the train extra lora and training are open."""
    monkeypatch.setattr("pytest_ftloop.config.schema.TRAIN_EXTRA", ("no_such_module",))
    assert 0 == main(["schema"])
    schema = json.loads(capsys.readouterr().out)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert {"name", "model", "data", "lora", "training", "scoring", "gates", "loop"} == set(
        schema["properties"]
    )
    assert schema["properties"]["lora"].get("additionalProperties", True)
    assert "properties" not in schema["properties"]["training"]


@pytest.mark.parametrize(
    ("key", "condition", "good"),
    [
        ("eval_loss", "<= 3.4", True),
        ("eval_loss[a b]", "< 1e-2", True),
        ("pass_rate[negation]", ">=90%", True),
        ("eval_loss", ">= 3.4", False),
        ("pass_rate", "0.9", False),
        ("pass_rat", ">= 0.9", False),
        ("pass_rate[]", ">= 0.9", False),
    ],
)
def test_schema_of_gates(
    key: str, condition: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate's key is a metric or one of a tag, its condition goes in the metric's direction."""
    monkeypatch.setattr("pytest_ftloop.config.schema.TRAIN_EXTRA", ("no_such_module",))
    gates = loop_file_schema()["properties"]["gates"]
    assert gates["additionalProperties"] is False
    fitting = [v for pattern, v in gates["patternProperties"].items() if re.search(pattern, key)]
    assert good == any(re.search(value["pattern"], condition) for value in fitting)


@pytest.mark.slow
def test_schema_knows_peft_and_trl() -> None:
    """With the train extra every argument is there with type and default, and no other name."""
    from peft import LoraConfig
    from trl import SFTConfig

    from pytest_ftloop.config.schema import REFUSED
    from pytest_ftloop.train.arguments import field_names

    schema = json.loads(json.dumps(loop_file_schema(), allow_nan=False))
    lora, training = schema["properties"]["lora"], schema["properties"]["training"]
    assert field_names(LoraConfig) == set(lora["properties"])
    assert field_names(SFTConfig) - set(REFUSED) == set(training["properties"])
    assert lora["additionalProperties"] is training["additionalProperties"] is False
    assert ("integer", 8) == tuple(lora["properties"]["r"][k] for k in ("type", "default"))
    rate = training["properties"]["learning_rate"]
    assert ("number", SFTConfig.learning_rate) == (rate["type"], rate["default"])
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert references <= set(schema["$defs"])
