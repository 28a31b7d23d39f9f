"""`ftloop diagnose`: the findings of any trainer's run, or those that a log holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.log import ImprovementLog
from tests.diagnose.trainer_state_cases import falling, run_of
from tests.fakes import fake_finding, fake_iteration
from tests.report.markdown_rows import rows_of

if TYPE_CHECKING:
    from tests.loops import Loops

Capture = pytest.CaptureFixture[str]
Diagnose = Callable[..., tuple[int, str, str]]

STATES = Path(__file__).parents[1] / "diagnose" / "trainer_states"


@pytest.fixture
def diagnose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in `tmp_path`, which has real runs; its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("sft", "hidden_nan", "two_eval_sets"):
        folder = tmp_path / name / "checkpoint-80"
        folder.mkdir(parents=True)
        shutil.copy(STATES / f"{name}.json", folder / "trainer_state.json")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["diagnose", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_text(diagnose: Diagnose) -> None:
    """What the run was, its curves, each finding with its figures and its remedy."""
    code, out, err = diagnose("sft")
    assert (0, "") == (code, err)
    lines = out.splitlines()
    assert "sft/checkpoint-80/trainer_state.json: step 80 of 80, 4 epochs, 4.5 s" == lines[0]
    assert lines[1].startswith("  train loss ")
    assert lines[1].endswith(" 3.4390 -> 0.4815, lowest 0.4335")
    assert lines[2].endswith(" 0.9304 -> 0.5008, lowest 0.4742")
    assert "findings: none" == lines[3]
    _, out, _ = diagnose("two_eval_sets")
    lines = out.splitlines()
    assert "findings:" in lines
    assert "  warning overfitting: Eval set near: The eval loss " in out
    assert "    evidence: eval_set near, eval_lowest " in out
    assert " is not on disk: train again up to there" in " ".join(out.split())
    assert "Halve the learning rate" in " ".join(out.split())


def test_an_error_fails(diagnose: Diagnose) -> None:
    """An error finding is exit code 1, also where another run is healthy."""
    code, out, _ = diagnose("sft", "hidden_nan/checkpoint-80")
    assert 1 == code
    assert "error non-finite: The gradient norm became NaN" in out
    assert "\nnote: a train loss of 0 beside a gradient norm of NaN" in out
    assert "\n\nhidden_nan/" in out


def test_several_eval_sets_have_a_curve_each(diagnose: Diagnose) -> None:
    """The curves are named, and stand below each other."""
    _, out, _ = diagnose("two_eval_sets")
    starts = [line.split("  ")[1][:15] for line in out.splitlines()[1:4]]
    assert ["train loss", "eval loss near", "eval loss far"] == [
        s.strip("█▇▆▅▄▃▂▁ ") for s in starts
    ]


def test_markdown(diagnose: Diagnose) -> None:
    """Headings, a table of the curves, a list of findings."""
    code, out, _ = diagnose("hidden_nan", "--format", "markdown")
    assert 1 == code
    assert out.startswith("### hidden_nan/checkpoint-80/trainer_state.json\n\nstep 80 of 80, ")
    assert ["eval loss", "nan", "nan", "nan"] in rows_of(out)
    assert "\n- **error non-finite**: The gradient norm" in out


def test_json(diagnose: Diagnose) -> None:
    """One list, of plain values; what JSON can't say is null."""
    code, out, _ = diagnose("hidden_nan", "two_eval_sets", "--format", "json")
    first, second = json.loads(out)
    assert 1 == code
    assert ("hidden_nan/checkpoint-80/trainer_state.json", 80) == (first["source"], first["step"])
    assert {"points": 8, "first": None, "last": None, "lowest": None} == first["curves"][
        "eval loss"
    ]
    assert ["non-finite"] == [finding["kind"] for finding in first["findings"]]
    assert {"kind", "severity", "message", "evidence", "remedy", "tunable"} == set(
        second["findings"][0]
    )


def test_metrics_and_the_checkpoint(diagnose: Diagnose, tmp_path: Path) -> None:
    """Metrics have a curve with their best value, and the remedy names the checkpoint."""
    evals = {
        "eval_loss": [0.50, 0.42, 0.47, 0.55, 0.62, 0.70],
        "eval_f1": [0.60, 0.70, 0.74, 0.78, 0.77, 0.77],
    }
    state = {"global_step": 600, "log_history": run_of(falling(60, 2.0, 0.1), evals)}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    code, out, _ = diagnose("trainer_state.json")
    assert 0 == code
    assert " 0.6000 -> 0.7700, highest 0.7800" in out
    assert "remedy: Use checkpoint-400 (epoch 2 of 3), if it was saved: by eval_f1" in out
    (record,) = json.loads(diagnose("trainer_state.json", "--format", "json")[1])
    assert {"points": 6, "first": 0.6, "last": 0.77, "highest": 0.78} == record["curves"]["eval_f1"]
    assert ["eval_f1", "0.6000", "0.7700", "0.7800"] in rows_of(
        diagnose("trainer_state.json", "--format", "markdown")[1]
    )


def test_a_loop(loops: Loops, capsys: Capture) -> None:
    """Of a loop file, a log or a folder with loops the logged findings of the last iteration."""
    loops.write()
    log = ImprovementLog(loops.root / "improvement_log" / "x")
    log.append(fake_iteration(1, loop="x", findings=[fake_finding("diverged", "error")]))
    log.append(fake_iteration(2, loop="x", findings=[fake_finding("underfit")]))
    for path in ("x.ftloop.yaml", "improvement_log/x", "improvement_log", "."):
        assert 0 == main(["diagnose", path])
        out, err = capsys.readouterr()
        assert "" == err
        assert out.startswith("improvement_log/x: iteration 002-00000002, the last of 2: ")
        assert "\n  info underfit: It is underfit.\n" in out
        assert "diverged" not in out


def test_a_loops_error_fails(loops: Loops, capsys: Capture) -> None:
    """An error that is logged is exit code 1."""
    loops.write()
    log = ImprovementLog(loops.root / "improvement_log" / "x")
    log.append(fake_iteration(1, loop="x", findings=[fake_finding("no-signal", "error")]))
    assert 1 == main(["diagnose"])
    assert "remedy: by hand: " in capsys.readouterr().out


def test_an_empty_log(loops: Loops, capsys: Capture) -> None:
    """A loop that was never trained is an error that says what trains it."""
    loops.write()
    assert 2 == main(["diagnose", "x.ftloop.yaml"])
    assert "pytest --ftloop trains the first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "phrase"),
    [
        ("gone", "gone: no such file or folder"),
        ("empty", "empty: neither a trainer_state.json, in it or in a checkpoint, nor a loop file"),
        ("broken", "broken/checkpoint-3/trainer_state.json:1: wanted JSON"),
        ("bytes.json", "bytes.json: wanted JSON, found text that is not UTF-8"),
        ("other.json", "other.json: wanted a trainer's state with log_history, found none"),
        ("bad.ftloop.yaml", "bad.ftloop.yaml"),
    ],
)
def test_unusable(diagnose: Diagnose, tmp_path: Path, path: str, phrase: str) -> None:
    """What can't be used is exit code 2: what was wanted, found, where, what to do; others run."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "broken" / "checkpoint-3" / "trainer_state.json").write_text('{"log_history": [')
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.json").write_text('{"r": 8}')
    (tmp_path / "bad.ftloop.yaml").write_text("data: [\n")
    code, out, err = diagnose(path, "sft")
    assert 2 == code
    assert phrase in err
    assert out.startswith("sft/")


def test_a_path_that_the_system_refuses(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is too long, or a folder without permission, is one line and exit code 2."""
    long = "a" * 300
    code, out, err = diagnose(long, "sft")
    assert (2, 1, True) == (code, len(err.splitlines()), out.startswith("sft/"))
    assert err.startswith(long)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert (2, "", "sft: can't be read: Permission denied\n") == diagnose("sft")


def test_a_folder_of_runs(diagnose: Diagnose, tmp_path: Path) -> None:
    """Of a sweep's folder the runs in it are named, to be named one by one."""
    for n in range(7):
        shutil.copytree(tmp_path / "sft", tmp_path / "sweep" / f"run {n}")
    (tmp_path / "sweep" / "logs").mkdir()
    code, _, err = diagnose("sweep")
    assert 2 == code
    assert "ftloop diagnose 'sweep/run 0' 'sweep/run 1' " in err
    assert err.endswith("'sweep/run 4' ...\n")


def test_without_epochs(diagnose: Diagnose, tmp_path: Path) -> None:
    """A trainer that logs no epoch is not said to have trained 0 of them."""
    path = tmp_path / "trainer_state.json"
    entry = {"step": 5, "loss": 1.0}
    path.write_text(json.dumps({"global_step": 5, "max_steps": 5, "log_history": [entry]}))
    assert diagnose(str(path))[1].splitlines()[0].endswith("trainer_state.json: step 5 of 5")


def test_hostile_names_are_inert(tmp_path: Path, capsys: Capture) -> None:
    """What a state's names hold reaches neither terminal nor Markdown raw."""
    entry = {"step": 1, "eval_\x1b[31m|@x_loss": 1.0, "eval_\x1b[31m|@x_runtime": 1}
    state = {"global_step": 1, "max_steps": 1, "log_history": [entry]}
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps(state))
    for form in ("text", "markdown"):
        assert 0 == main(["diagnose", str(path), "--format", form])
        out = capsys.readouterr().out
        assert "\x1b" not in out
    assert "|@x" not in out


def test_nothing_heavy_is_imported(diagnose: Diagnose, tmp_path: Path) -> None:
    """Neither torch nor numpy is needed."""
    code = (
        "import sys; from pytest_ftloop.cli import main; main(['diagnose', 'sft']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'transformers', 'scipy')))"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_a_plain_trainer_script(tmp_path: Path, capsys: Capture) -> None:
    """Of an SFTTrainer's output_dir: its adapter is read, and one that did not move is found."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from pytest_ftloop.core.progress import Silent
    from pytest_ftloop.train.tiny import tiny_folder

    rows = [{"prompt": f"say {n}:", "completion": f" {n}"} for n in range(32)]

    def trained(name: str, rate: float) -> Path:
        arguments = SFTConfig(
            output_dir=str(tmp_path / name),
            use_cpu=True,
            bf16=False,
            learning_rate=rate,
            num_train_epochs=4,
            logging_steps=1,
            eval_strategy="epoch",
            save_strategy="epoch",
            report_to="none",
            disable_tqdm=True,
        )
        data = Dataset.from_list(rows)
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        SFTTrainer(
            model=str(tiny_folder(Silent())),
            args=arguments,
            train_dataset=data,
            eval_dataset=data.select(range(8)),
            peft_config=lora,
        ).train()
        capsys.readouterr()
        return tmp_path / name

    assert 0 == main(["diagnose", str(trained("learns", 1e-3))])
    out = " ".join(capsys.readouterr().out.split())  # the path's length moves the line ends
    assert "step 16 of 16, 4 epochs" in out
    assert "an adapter of rank 4 with " in out
    assert 1 == main(["diagnose", str(trained("idle", 0.0))])
    assert "error no-signal: Nothing can be learned: the learning rate was 0" in (
        capsys.readouterr().out
    )
