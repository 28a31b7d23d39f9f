"""Credentials in a loop file reach the training, and no file, no page and no line of output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.writing import tag_of

if TYPE_CHECKING:
    from tests.loops import Loops

Capture = pytest.CaptureFixture[str]

BY_NAME = "open-sesame-1234"
BY_FORM = "hf_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"
SECRETS = f"""\
  hub_token: {BY_NAME}
  model_init_kwargs:
    token: {BY_FORM}
    proxies: {{https: "http://me:{BY_NAME}@proxy:1"}}
"""
COMMANDS = (
    ["run"],
    ["run", "--replay", "-v"],
    ["log"],
    ["log", "--format", "json"],
    ["show", "best"],
    ["diff", "HEAD~1..HEAD"],
    ["diff", "--format", "markdown"],
    ["diff", "--format", "json"],
    ["gate"],
    ["gate", "--json"],
    ["suggest"],
    ["accept", "best"],
    ["accept", "best", "--baseline"],
    ["calibrate", "--seeds", "2"],
    ["export", "best"],
    ["report", "-o", "page.html"],
    ["ci", "--out", "out"],
)


def put_secrets(loops: Loops) -> Path:
    """Add credentials to the training section of the loop x."""
    file = loops.root / "x.ftloop.yaml"
    file.write_text(file.read_text().replace("training:\n", f"training:\n{SECRETS}"))
    return file


def test_no_output_and_no_file_holds_them(loops: Loops, capsys: Capture) -> None:
    """Whatever is run on a loop with credentials; each command says where they stand."""
    loops.version()
    loops.write(rate="1.2e-3")
    file = put_secrets(loops)
    loops.train()
    loops.commit()
    told = capsys.readouterr()
    assert "training.hub_token, training.model_init_kwargs.token" in told.out + told.err
    shown = told.out + told.err
    for command in COMMANDS:
        assert main(command) in (0, 1, 2)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        shown += out + err
    written = {path: text for path, text in loops.files().items() if path != file.name}
    assert any(path.endswith("page.html") for path in written)
    for secret in (BY_NAME, BY_FORM):
        assert secret not in shown
        assert [] == [path for path, content in written.items() if secret.encode() in content]
    assert BY_NAME in file.read_text(), "ftloop accept leaves the credentials in the loop file"


def test_the_training_gets_them(loops: Loops) -> None:
    """Those of the loop file as it is now, also for settings that were read from the log."""
    loops.write()
    config = read_loop_file(put_secrets(loops))
    assert BY_NAME not in repr(config)
    logged = replace(
        config.settings, training={"learning_rate": 1e-3, "model_init_kwargs": {"a": 1}}
    )
    stated = config.with_credentials(logged).training
    assert (1e-3, BY_NAME) == (stated["learning_rate"], stated["hub_token"])
    assert {"a", "token", "proxies"} == set(stated["model_init_kwargs"])


def test_settings_are_the_same_with_and_without(loops: Loops, capsys: Capture) -> None:
    """The fingerprint depends on no credential: a renewed one makes no log out of date."""
    loops.version()
    assert 0 == main(["run", "--replay"])
    assert "credential" not in "".join(capsys.readouterr())
    put_secrets(loops)
    assert 0 == main(["run", "--replay"])
    assert "x.ftloop.yaml holds credentials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("model", f"model: https://me:{BY_NAME}@host/m"),
        ("model", f"model: {BY_FORM}"),
        ("tokenizer.name", f"tokenizer: {{name: {BY_FORM}}}"),
        ("name", f"name: {BY_FORM}"),
        ("data.holdout", f"data: {{train: train.jsonl, eval: eval.jsonl, holdout: {BY_FORM}}}"),
        ("training.run_name", f"training: {{run_name: {BY_FORM}}}"),
        ("training.project", f"training: {{project: 'https://me:{BY_NAME}@host'}}"),
        ("lora.target_modules[0]", f"lora: {{target_modules: [{BY_FORM}]}}"),
        ("loop.policy[0].training.hub_token", "loop: {policy: [{training.hub_token: abc}]}"),
        (
            "loop.policy[0].training.run_name",
            f"loop: {{policy: [{{training.run_name: {BY_FORM}}}]}}",
        ),
        ("scoring.pattern", f"scoring: {{scorer: regex, pattern: {BY_FORM}}}"),
    ],
)
def test_elsewhere_one_is_an_error(tmp_path: Path, key: str, line: str) -> None:
    """In what the log keeps; the error names the key and its line, and shows nothing of it."""
    file = tmp_path / "x.ftloop.yaml"
    data = "" if line.startswith("data") else "data: {train: train.jsonl, eval: eval.jsonl}\n"
    file.write_text(f"{data}{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_loop_file(file)
    wanted = f"x.ftloop.yaml:{1 + bool(data)}: {key}: found a credential"
    assert wanted in str(caught.value)
    assert BY_FORM not in str(caught.value)
    assert BY_NAME not in str(caught.value)


def test_a_log_that_holds_one_already_is_told(loops: Loops, capsys: Capture) -> None:
    """As an older version wrote it: file and keys are named, and nothing shows what is there."""
    loops.version()
    log = ImprovementLog(loops.root / "improvement_log" / "x")
    record, table = log.files(log.read()[0])
    text = record.read_text().replace(
        "  training:\n", f"  training:\n    hub_token: {BY_NAME}\n    run_name: {BY_FORM}\n"
    )
    stem = f"{record.stem.rpartition('-')[0]}-{tag_of(text)}"
    record.unlink()
    table.rename(table.with_name(f"{stem}.examples.csv"))
    record.with_name(f"{stem}.yaml").write_text(text)
    loops.commit()
    for command in (["run", "--replay"], ["gate"], ["show", "best"], ["diff"], ["log"]):
        main(command)
        out, err = capsys.readouterr()
        assert BY_NAME not in out + err
        assert BY_FORM not in out + err
        if command[0] != "diff":
            assert f"{stem}.yaml holds a credential" in out + err
            assert "settings.training.hub_token" in out + err
