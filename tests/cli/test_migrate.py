"""`ftloop init --from`: what a script or hosted rows state is taken, all else is named."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_ftloop.cli.main import main
from pytest_ftloop.config.from_script import Left, from_script
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.script_calls import POSITIONS
from pytest_ftloop.core.errors import ConfigError, DataError
from pytest_ftloop.data.from_openai import from_openai

SCRIPT = """\
import argparse, torch
from dataclasses import dataclass

MODEL = "owner/base"
RANK = 16

@dataclass
class Options:
    decay: float = 0.01

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=2e-4)
parser.add_argument("--epochs", type=int)
args = parser.parse_args()
open("ran", "w")  # nothing of this runs
common = {"learning_rate": args.lr, "max_seq_length": 512, **dict(seed=7)}
data = load_dataset("json", data_files={"train": "rows/a.jsonl", "test": "rows/b.jsonl"})
model = AutoModelForCausalLM.from_pretrained(MODEL, torch_dtype=torch.bfloat16)
lora = LoraConfig(r=RANK, lora_alpha=RANK * 2, target_modules=["q_proj"], task_type="CAUSAL_LM")
lora.lora_dropout = 0.1
config = SFTConfig(
    output_dir="out",
    num_train_epochs=args.epochs,
    evaluation_strategy="epoch",
    warmup_ratio=0.1,
    group_by_length=True,
    weight_decay=Options().decay,
    optim=pick(),
    push_to_hub=True,
    **common,
)
trainer = SFTTrainer(
    model=model, args=config, train_dataset=data["train"], eval_dataset=data["test"],
    peft_config=lora, callbacks=[Stop()],
)
"""


def test_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Names, dicts, `**`, options' defaults, old names and files are read; nothing is run."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    assert 0 == main(["init", "--from", "train.py", "loops"])
    assert not Path("ran").exists()
    stated = yaml.safe_load(Path("loops/train.ftloop.yaml").read_text())
    assert "owner/base" == stated["model"]
    assert {"train": "../rows/a.jsonl", "eval": "../rows/b.jsonl"} == stated["data"]
    assert {
        "r": 16,
        "lora_alpha": 32,
        "target_modules": ["q_proj"],
        "lora_dropout": 0.1,
    } == stated["lora"]
    assert {
        "model_init_kwargs": {"dtype": "bfloat16"},
        "eval_strategy": "epoch",
        "warmup_steps": 0.1,
        "train_sampling_strategy": "group_by_length",
        "weight_decay": 0.01,
        "learning_rate": 2e-4,
        "max_length": 512,
        "seed": 7,
    } == stated["training"]
    assert "owner/base" == read_loop_file(Path("loops/train.ftloop.yaml")).model
    out = capsys.readouterr().out
    assert "line 23: num_train_epochs=args.epochs\n    the option --epochs has no default" in out
    assert "line 28: optim=pick()\n    a call, whose value only a run gives" in out
    assert "line 29: push_to_hub=True\n    training.push_to_hub can't be set" in out
    assert "line 34: callbacks=[Stop()]\n    a loop has no such key" in out


NOT_COPIED = "a credential is not copied: set HF_TOKEN, or log in to the hub"


@pytest.mark.parametrize(
    ("line", "what", "why"),
    [
        ("r = 1\nr = 2\nLoraConfig(r=r)", "r=r", "r is assigned in lines 1 and 2"),
        ("LoraConfig(r=missing)", "r=missing", "missing is not assigned in this script"),
        ("r = 1\nr *= 2\nLoraConfig(r=r)", "r=r", "r is assigned in lines 1 and 2"),
        ("r = 1\nfor r in (2, 4):\n LoraConfig(r=r)", "r=r", "r is assigned in lines 1 and 2"),
        ("for r in (2, 4):\n LoraConfig(r=r)", "r=r", "r gets its value only in a run"),
        ("c = LoraConfig(r=2)\nc.r *= 2", "c.r *= 2", "it depends on the value before"),
        ("LoraConfig(r='x')", "r='x'", "lora.r: wanted a whole number, found 'x'"),
        ("LoraConfig(rank=8)", "rank=8", "lora.rank is not an argument of LoraConfig"),
        ("SFTConfig(hub_token='abc')", "hub_token=***", NOT_COPIED),
        (
            "LoraConfig(r=8)\nAutoModelForCausalLM.from_pretrained('x', token='abc')",
            "token=***",
            NOT_COPIED,
        ),
        ("LoraConfig(**load())", "**load()", "not a dict that is written out"),
        ("LoraConfig(r=1 / 0)", "r=1 / 0", "division by zero"),
        (
            "SFTTrainer(train_dataset=load_dataset('x').map(f))",
            "train_dataset=load_dataset('x').map(f)",
            "its rows are changed by .map(): move that to a function and name it, data: {train: "
            "module:function}",
        ),
    ],
)
def test_what_can_not_be_read(line: str, what: str, why: str) -> None:
    """It is left out, with its line and the reason."""
    lines = line.count("\n") + 1
    assert [Left(lines, what, why)] == from_script(line, "train.py").left


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("load_dataset('json', data_files='a.jsonl', split='train')", {"train": "a.jsonl"}),
        ("load_dataset('csv', data_files=['a.csv'])['train']", {"train": "a.csv"}),
        (
            "load_dataset('o/n', 'en', split='x')",
            {"train": {"hub": "o/n", "split": "x", "name": "en"}},
        ),
    ],
)
def test_where_rows_are(call: str, expected: dict[str, Any]) -> None:
    """Files and hub ids of load_dataset."""
    assert expected == from_script(f"SFTTrainer(train_dataset={call})", "t.py").data


def test_an_eval_set_that_is_split_off() -> None:
    """train_test_split becomes data.split."""
    text = (
        "d = load_dataset('json', data_files='a.jsonl').train_test_split(test_size=0.2, seed=3)\n"
        "SFTTrainer(train_dataset=d['train'], eval_dataset=d['test'])\n"
    )
    found = from_script(text, "t.py")
    assert {"train": "a.jsonl", "split": {"fraction": 0.2, "seed": 3}} == found.data


@pytest.mark.parametrize(
    "text",
    [
        "from peft import LoraConfig as Lora\nfrom trl import SFTConfig as Config\n"
        "Lora(r=4)\nConfig(seed=7)",
        "import peft as p, trl\np.LoraConfig(r=4)\ntrl.SFTConfig(seed=7)",
        "Config = trl.trainer.SFTConfig\npeft.LoraConfig(r=4)\nConfig('out', seed=7)",
        "LoraConfig(r=4)\nSFTTrainer('m', SFTConfig(seed=7))\nSFTConfig",
        # Two trainings, the second as a comparison: what the first trainer is given.
        "a = SFTConfig(seed=1)\nb = SFTConfig(seed=7)\nl = LoraConfig(r=4)\nk = LoraConfig(r=9)\n"
        "SFTTrainer('m', b, peft_config=l)\nSFTTrainer('n', a, peft_config=k)",
    ],
)
def test_by_whatever_name_it_is_called(text: str) -> None:
    """An alias, a module's name, a position: what a script states is read or named as left out."""
    found = from_script(text, "t.py")
    assert ({"r": 4}, {"seed": 7}) == (found.lora, found.training)
    if "SFTTrainer" in text:
        assert "m" == found.model
    told = [left.what for left in found.left]
    assert told == (["SFTConfig", "LoraConfig", "SFTTrainer"] if "m', b" in text else [])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "class Mine(SFTTrainer):\n pass\nMine('m', SFTConfig(seed=7))",
            Left(1, "class Mine(SFTTrainer)", "what the class changes is not taken"),
        ),
        (
            "a = SFTConfig(seed=7)\nSFTTrainer('m', a, collate)",
            Left(2, "data_collator=collate", "a loop has no such key"),
        ),
        (
            "SFTConfig(seed=7, report_to='wandb')\nSFTTrainer('m')",
            Left(
                1,
                "report_to='wandb'",
                "the improvement log has every run; state it to report there as well",
            ),
        ),
        (
            "SFTConfig(seed=7, report_to='none')\nSFTTrainer('m')\nLoraConfig('x')",
            Left(3, "'x'", "an argument without its name"),
        ),
    ],
)
def test_what_is_named_as_left_out(text: str, left: Left) -> None:
    """Own classes, arguments without a name, reports elsewhere."""
    found = from_script(text, "t.py")
    assert ("m", {"seed": 7}, [left]) == (found.model, found.training, found.left)


def test_settings_of_a_parser() -> None:
    """What TrlParser reads is in no script: the loop file does not pass for complete."""
    text = (
        "a, m = TrlParser((SFTConfig, ModelConfig)).parse_args_and_config()\n"
        "SFTTrainer('m', a, None, peft_config=get_peft_config(m))"
    )
    why = "its arguments are not stated here"
    assert [Left(2, "args=a", why), Left(2, "peft_config=get_peft_config(m)", why)] == from_script(
        text, "t.py"
    ).left


@pytest.mark.slow
def test_positions_are_trls() -> None:
    """Arguments without a name are those that trl takes in these places."""
    trl = pytest.importorskip("trl")
    places = [*inspect.signature(trl.SFTTrainer.__init__).parameters][1:]
    assert [*POSITIONS["trainer"]] == places[: len(POSITIONS["trainer"])]
    assert "output_dir" == [*inspect.signature(trl.SFTConfig.__init__).parameters][1]


def test_other_trainers(tmp_path: Path, capsys: Any) -> None:
    """A script that trains in another way is told what a loop trains with."""
    with pytest.raises(ConfigError, match="or SFTTrainer, only DPOTrainer") as caught:
        from_script("from trl import DPOTrainer\nDPOTrainer('m')", "t.py")
    assert "trl's SFTTrainer" in caught.value.cure
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("{}")
    assert 2 == main(["init", "--from", str(notebook)])
    assert "jupyter nbconvert --to script a.ipynb" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["def (", "print(1)", "a = {**a}\nLoraConfig(**a)", ""])
def test_no_script(text: str) -> None:
    """What is no Python, states nothing, or is its own value is one error."""
    with pytest.raises(ConfigError):
        from_script(text, "t.py")


# hosted fine-tuning


def rows(*given: object) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in given)


USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def test_hosted_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are copied beside a loop file that splits an eval set off."""
    monkeypatch.chdir(tmp_path)
    Path("chat.jsonl").write_text(rows({"messages": [USER, ANSWER]}))
    assert 0 == main(["init", "--from", "chat.jsonl"])
    assert rows({"messages": [USER, ANSWER]}) == Path("data/train.jsonl").read_text()
    config = read_loop_file(Path("chat.ftloop.yaml"))
    assert config.split is not None
    assert 0.1 == config.split.fraction


def test_rows_are_not_replaced_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also with --force: the file that is read may be the only one with all that is in it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/train.jsonl").write_text(text := rows({"messages": [USER, ANSWER], "note": 1}))
    assert 2 == main(["init", "--from", "data/train.jsonl", "--force"])
    assert text == Path("data/train.jsonl").read_text()
    assert not Path("train.ftloop.yaml").exists()
    assert "which is the file to read" in capsys.readouterr().err


def test_hosted_functions_and_weights() -> None:
    """functions become tools; a weight of 0 makes prompt and completion, of all rows."""
    call = {"role": "assistant", "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    first = {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]}
    second = {"messages": [USER, call], "functions": [{"name": "f"}]}
    found = from_openai(rows(first, second), "chat.jsonl").rows
    assert {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]} == found[0]
    called = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert [{"role": "assistant", "tool_calls": [called], "content": ""}] == found[1]["completion"]
    assert [{"type": "function", "function": {"name": "f"}}] == found[1]["tools"]


def test_hosted_role_developer() -> None:
    """Open models' templates know it as system; Qwen's would drop it without a word."""
    found = from_openai(rows({"messages": [{"role": "developer", "content": "s"}, ANSWER]}), "c")
    assert ({"role": "system", "content": "s"}, 1) == (
        found.rows[0]["messages"][0],
        found.changes["the role developer became system"],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            rows({"messages": [{**USER, "content": [{"type": "image_url"}]}, ANSWER]}),
            "chat.jsonl:1: wanted text, found content of the type 'image_url'",
        ),
        (rows({"messages": [{**USER, "content": ["q"]}, ANSWER]}), "chat.jsonl:1: wanted text"),
        (
            rows({"input": {}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}),
            'chat.jsonl:1: wanted {"messages": [{"role": ..., "content": ...}, ...]}\n'
            "  These are preferences",
        ),
        ("{\n", "chat.jsonl:1: not JSON"),
        (rows({"prompt": "a", "completion": "b"}), 'chat.jsonl:1: wanted {"messages": '),
        ("\n", "chat.jsonl: the file has no rows"),
        (rows({"messages": [USER, {**ANSWER, "weight": 0}]}), "chat.jsonl:1: weight: wanted 1 for"),
        (
            rows(
                {"messages": [USER, {**ANSWER, "weight": 0}, USER, ANSWER]},
                {"messages": [USER, ANSWER, USER, ANSWER]},
            ),
            "chat.jsonl:2: other rows have weights",
        ),
        *(
            (
                rows({"messages": [USER, {**ANSWER, **in_answer}], **in_row}),
                f"chat.jsonl:1: wanted a list in {key}, found {kind}",
            )
            for key, in_answer, in_row, kind in (
                ("tools", {}, {"tools": 5}, "int"),
                ("tools", {}, {"tools": "f"}, "str"),
                ("functions", {}, {"functions": {"name": "f"}}, "dict"),
                ("tool_calls", {"tool_calls": 5}, {}, "int"),
            )
        ),
    ],
)
def test_hosted_rows_that_can_not_be_read(text: str, message: str) -> None:
    """One error with the line."""
    with pytest.raises(DataError) as caught:
        from_openai(text, "chat.jsonl")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "arguments", [["--from", "no.py"], ["--from", "x.txt"], ["--agents", "--github"]]
)
def test_a_mistake_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str]
) -> None:
    """One error, and no file."""
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text("x")
    assert 2 == main(["init", *arguments])
    assert ["x.txt"] == [path.name for path in tmp_path.iterdir()]
    assert "Traceback" not in capsys.readouterr().err


def test_agents(tmp_path: Path) -> None:
    """AGENTS.md names commands that exist, and is not replaced."""
    assert 0 == main(["init", str(tmp_path), "--agents"])
    assert "ftloop gate --json" in Path(tmp_path, "AGENTS.md").read_text()
    assert 2 == main(["init", str(tmp_path), "--agents"])


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The example's README shows what the command prints and writes."""
    example = Path(__file__).parents[2] / "examples" / "from_script"
    (tmp_path / "train.py").write_bytes((example / "train.py").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["init", "--from", "train.py"])
    readme = (example / "README.md").read_text(encoding="utf-8")
    assert f"```text\n{capsys.readouterr().out}```" in readme
    assert f"```yaml\n{Path('train.ftloop.yaml').read_text()}```" in readme


@pytest.mark.parametrize("own", ["# Ours\n\nUse tabs.\n", "# Ours\r\n\r\nUse tabs.", "\n"])
def test_agents_are_told_beside_what_they_were_told(tmp_path: Path, capsys: Any, own: str) -> None:
    """The user's own AGENTS.md keeps its text and gets ours as a section, once."""
    path = tmp_path / "AGENTS.md"
    path.write_bytes(own.encode())
    assert 0 == main(["init", str(tmp_path), "--agents"])
    text = path.read_bytes().decode()
    end = "\r\n" if "\r\n" in own else "\n"
    kept = f"{own.rstrip()}{end}{end}" if own.strip() else ""
    assert text.startswith(f"{kept}## Fine-tuning loops")
    assert f"{end}### Rules{end}" in text
    assert text.count("\n") == text.count(end)
    assert capsys.readouterr().out.startswith("added to ")
    assert 2 == main(["init", str(tmp_path), "--agents"])
    assert text == path.read_bytes().decode()


def test_agents_file_that_is_no_text_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_bytes(b"\xff\xfe")
    assert 2 == main(["init", str(tmp_path), "--agents"])
    assert b"\xff\xfe" == path.read_bytes()


def test_a_linked_agents_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "CLAUDE.md").write_text("# Ours\n")
    path = tmp_path / "AGENTS.md"
    path.symlink_to("CLAUDE.md")
    assert 0 == main(["init", str(tmp_path), "--agents"])
    assert path.is_symlink()
    assert (tmp_path / "CLAUDE.md").read_text().startswith("# Ours\n\n## Fine-tuning loops")
