"""The `ftloop` fixture: loops from a file or from live objects, in a Python test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

CALL = """\
def test_x(ftloop):
    ftloop({}).run()
"""

SETTINGS = "train='train.jsonl', eval='eval.jsonl', training={'learning_rate': 5e-3}"


def test_file_relative_to_the_test(project: Project) -> None:
    """A loop file is looked for beside the test file, and its log lies beside it."""
    for name in ("x.ftloop.yaml", "train.jsonl", "eval.jsonl"):
        (project.path / "deep").mkdir(exist_ok=True)
        (project.path / name).rename(project.path / "deep" / name)
    project.write("deep/test_x.py", CALL.format("'x.ftloop.yaml'"))
    project.run("--ftloop", "deep/test_x.py").assert_outcomes(passed=1)
    assert 6 == len(project.files("deep/improvement_log/x"))
    assert {} == project.log()


def test_file_relative_to_the_working_folder(project: Project) -> None:
    """A loop file that does not lie beside the test file may lie below the working folder."""
    project.write("deep/test_x.py", CALL.format("'x.ftloop.yaml'"))
    project.run("--ftloop", "deep/test_x.py").assert_outcomes(passed=1)
    assert 6 == len(project.log())


def test_path_object_and_result(project: Project) -> None:
    """The result has every figure, slice, finding and failing example of the best iteration."""
    project.edit("x.ftloop.yaml", "iterations: 3", "iterations: 2")
    project.write(
        "test_x.py",
        """
from pathlib import Path

import pytest

def test_x(ftloop):
    loop = ftloop(Path(__file__).with_name("x.ftloop.yaml"))
    assert loop.config.name == "x"
    best = loop.run()
    assert best.eval_loss == pytest.approx(1.68)
    assert best.overfit_gap == pytest.approx(best.eval_loss - best.train_loss)
    assert best.perplexity == pytest.approx(2.718281828 ** 1.68)
    assert best.token_accuracy == 0.75
    assert best.slice("negation").pass_rate == 0
    assert [row.id for row in best.failing] == ["e0", "e1"]
    assert "underfit" in [f.kind for f in best.findings]
    assert len(best.chain) == len(best.trained) == 2
    assert loop.run().trained == ()  # up to date
""",
    )
    project.run("--ftloop").assert_outcomes(passed=2, failed=1)


def test_changed_file_is_run_anew(project: Project) -> None:
    """A loop file that a test rewrites and runs again is read again."""
    project.write(
        "test_x.py",
        """
from pathlib import Path

def test_x(ftloop):
    file = Path(__file__).with_name("x.ftloop.yaml")
    first = ftloop(file).run()
    file.write_text(file.read_text().replace("learning_rate: ", "learning_rate: 1"))
    assert ftloop(file).run().best.id != first.best.id
""",
    )
    project.run("--ftloop", "-k", "test_x").assert_outcomes(passed=1)


def test_file_is_run_once_for_tests_and_gates(project: Project) -> None:
    """A loop file that is a test's and an item's is trained once and summed up once."""
    project.write("test_x.py", CALL.format("'x.ftloop.yaml'") * 2)
    project.write("test_y.py", CALL.format("'x.ftloop.yaml'"))
    result = project.run("--ftloop")
    result.assert_outcomes(passed=4)
    assert 3 == len(project.trained())
    assert 1 == result.stdout.str().count("- ftloop x -")
    result.stdout.fnmatch_lines(["x: 3 iterations (3 trained, *"])


def test_loop_from_settings(project: Project) -> None:
    """Settings make a loop named after the test; its log lies beside the test file."""
    project.write("deep/test_y.py", CALL.format(SETTINGS.replace("='", "='../")))
    project.run("--ftloop", "deep", "--ftloop-iterations=1").assert_outcomes(passed=1)
    assert ["x 0.005"] == project.trained()
    assert 2 == len(project.files("deep/improvement_log/x"))
    project.run("--ftloop", "deep", "--ftloop-iterations=1").assert_outcomes(passed=1)
    assert ["x 0.005"] == project.trained()


def test_two_loops_of_one_test(project: Project) -> None:
    """Loops of one name share a log, and are summed up each for itself."""
    other = SETTINGS.replace("5e-3", "1e-3")
    project.write("test_x.py", CALL.format(SETTINGS) + f"    ftloop({other}).run()\n")
    result = project.run("--ftloop", "test_x.py", "--ftloop-iterations=1")
    result.stdout.fnmatch_lines(
        ["x: 1 iteration (1 *, best 001-*", "x: 1 iteration (1 *, best 002-*"]
    )
    assert 4 == len(project.log())


def test_parametrized_loops(project: Project) -> None:
    """Each parameter's loop has a name, and so a log, of its own."""
    project.write(
        "test_x.py",
        "import pytest\n\n@pytest.mark.parametrize('rate', [1e-3, 5e-3])\n"
        "def test_rate(ftloop, rate):\n"
        f"    ftloop({SETTINGS.replace('5e-3', 'rate')}).run()\n",
    )
    project.run("--ftloop", "test_x.py", "--ftloop-iterations=1").assert_outcomes(passed=2)
    assert {"rate-0.001", "rate-0.005"} == {name.partition("/")[0] for name in project.log()}


def test_gates_of_a_loop_from_settings(project: Project) -> None:
    """Gates given from Python are judged: the result says which hold."""
    project.write(
        "test_x.py",
        "def test_x(ftloop):\n"
        f"    loop = ftloop({SETTINGS}, gates={{'eval_loss': '<= 1'}}, loop={{'iterations': 1}})\n"
        "    assert [gate.passed for gate in loop.run().gates] == [False]\n",
    )
    result = project.run("--ftloop", "test_x.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  eval_loss *1.4400 *<= 1 *0.4400"])


@pytest.mark.parametrize(
    ("call", "message", "cure"),
    [
        ("'y.ftloop.yaml'", "y.ftloop.yaml: can't be read: No such file", "x.ftloop.yaml"),
        ("'train.jsonl'", "train.jsonl:2: not YAML: ", ""),
        (f"{SETTINGS}, trainig={{}}", "ftloop() has no argument 'trainig'", "mean 'training'?"),
        (
            "'x.ftloop.yaml', lora={}",
            "ftloop() takes a loop file or settings, found both: x.ftloop.yaml and lora",
            "Write the settings into the loop file",
        ),
        ("", "data.train is missing", "train: data/train.jsonl"),
        ("train='train.jsonl'", "no eval set: add eval, or split one off", ""),
        (f"{SETTINGS}, scoring='exat'", "unknown scorer 'exat'", "Did you mean 'exact'?"),
        (f"{SETTINGS}, gates={{'eval_los': '<= 1'}}", "unknown metric 'eval_los'", "eval_loss"),
        (f"{SETTINGS}, lora=3", "lora: wanted a LoraConfig or its arguments", "found int"),
        ("train=3, eval='eval.jsonl'", "wanted train rows or their source, found int", ""),
        ("train=[], eval='eval.jsonl'", "the train set list has no rows", ""),
    ],
)
def test_mistakes(project: Project, call: str, message: str, cure: str) -> None:
    """A mistake in the call is told with its cure, without a traceback; nothing is written."""
    (project.path / "test_x.py").write_text(CALL.format(call))
    before = project.files()
    result = project.run("--ftloop", "test_x.py")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert message in text
    assert cure in text
    assert "Traceback" not in text
    assert before == project.files()
    assert [] == project.trained()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("best.slice('negatoin').pass_rate", "Did you mean 'pass_rate[[]negation]'?"),
        ("best.figure('eval_los')", "Did you mean 'eval_loss'?"),
    ],
)
def test_figure_that_is_not_there(project: Project, expression: str, message: str) -> None:
    """A figure or tag that the loop does not have is told with the nearest that it has."""
    project.write(
        "test_x.py",
        f"def test_x(ftloop):\n    best = ftloop('x.ftloop.yaml').run()\n    {expression}\n",
    )
    result = project.run("--ftloop", "test_x.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{message}*"])


def test_score_hook(project: Project) -> None:
    """`scoring: {scorer: hook}` asks pytest_ftloop_score, the first that gives an answer."""
    project.edit("x.ftloop.yaml", "gates:", "scoring: {scorer: hook}\ngates:")
    project.write(
        "conftest.py",
        'pytest_plugins = ["tests.plugin.fake_runner", "other"]\n'
        "def pytest_ftloop_score(output, expected, example):\n"
        "    return None if example['prompt'].endswith('0?') else len(output) > 3\n",
    )
    project.write(
        "other.py",
        "import pytest\n\n@pytest.hookimpl(trylast=True)\n"
        "def pytest_ftloop_score(output, expected):\n    return expected == 'answer 0'\n",
    )
    result = project.run("--ftloop", "-v", "--ftloop-iterations=1")
    assert 1 == len(project.trained())
    result.stdout.fnmatch_lines(["x: 1 iteration (1 trained, *, pass_rate 100.0%*"])


@pytest.mark.parametrize("answer", ["", "def pytest_ftloop_score():\n    return None\n"])
def test_score_hook_without_an_answer(project: Project, answer: str) -> None:
    """A hook that is not there, or leaves an example unanswered, is told; nothing is logged."""
    project.edit("x.ftloop.yaml", "gates:", "scoring: {scorer: hook}\ngates:")
    project.write("conftest.py", (project.path / "conftest.py").read_text() + answer)
    before = project.files()
    result = project.run("--ftloop")
    result.assert_outcomes(failed=2)
    assert "pytest_ftloop_score" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert before == project.files()


def test_scorer_beside_the_loop_file(project: Project) -> None:
    """`module:function` lies beside the loop file; its text counts as part of the scoring."""
    scorer = "def lenient(output, expected, example):\n    return {}\n"
    project.edit("x.ftloop.yaml", "gates:", "scoring: {scorer: 'my_scorer:lenient'}\ngates:")
    for name in ("x.ftloop.yaml", "train.jsonl", "eval.jsonl"):
        (project.path / "deep").mkdir(exist_ok=True)
        (project.path / name).rename(project.path / "deep" / name)
    for answer, done, rate in (
        ("True", "1 trained", "100.0%"),
        ("bool(example['prompt'] == 'what is 0?')", "1 evaluated again", "20.0%"),
    ):
        project.write("deep/my_scorer.py", scorer.format(answer))
        result = project.run("--ftloop", "-v", "--ftloop-iterations=1")
        result.stdout.fnmatch_lines([f"x: 1 iteration ({done}*, pass_rate {rate}*"])
    assert 1 == len(project.trained())


LIVE = """\
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.train.tiny import tiny_folder

ROWS = [{"prompt": f"{n} and one is", "completion": f" {n + 1}", "tags": ["sum"]} for n in range(8)]


def test_live(ftloop, tmp_path):
    folder = tiny_folder(Silent())
    loop = ftloop(
        model=AutoModelForCausalLM.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        train=Dataset.from_list(ROWS),
        eval=Dataset.from_list(ROWS[:4]),
        lora=LoraConfig(r=4, target_modules="all-linear"),
        training=SFTConfig(
            output_dir=str(tmp_path), max_steps=2, learning_rate=1e-3, use_cpu=True, bf16=False
        ),
        scoring="contains",
        loop={"iterations": 1},
    )
    best = loop.run()
    assert 0 < best.eval_loss < 20
    assert best.slice("sum").pass_rate == best.pass_rate
    assert len(best.best.examples) == 4
    settings = best.best.settings
    assert settings.lora == {"r": 4, "target_modules": "all-linear"}
    assert {"max_steps": 2, "learning_rate": 1e-3}.items() <= settings.training.items()
    assert "output_dir" not in settings.training
    assert best.best.model.startswith("live:")
    assert best.adapter.is_dir()
    assert len(loop.run().trained) == 0
    assert best.eval_loss < 0.001
"""


@pytest.mark.slow
def test_live_objects(project: Project) -> None:
    """A loaded model and tokenizer, Datasets, a LoraConfig and an SFTConfig train for real."""
    (project.path / "x.ftloop.yaml").unlink()
    project.write("conftest.py", "")
    project.write("test_live.py", LIVE)
    done = project.run_alone("--ftloop")
    assert pytest.ExitCode.TESTS_FAILED == done.returncode
    assert ">       assert best.eval_loss < 0.001" in done.stdout, done.stdout
    assert "examples with the highest loss (of 4):" in done.stdout
    assert "live: 1 iteration (1 trained, " in done.stdout
    assert {"live", "live/base"} == {name.rpartition("/")[0] for name in project.log()}
