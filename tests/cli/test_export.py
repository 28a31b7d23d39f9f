"""`ftloop export`: an adapter of the cache as a PEFT folder, whole or not at all, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_ftloop.cli import main
from pytest_ftloop.core.recipe import recipe_id
from pytest_ftloop.core.records import Judgement
from pytest_ftloop.core.sums import write_sums
from pytest_ftloop.data.identity import model_identity
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.workspace import find_logs
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics
from tests.report.markdown_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

Capture = pytest.CaptureFixture[str]

LOOP = """\
model: {model}
data: {{train: train.jsonl, eval: eval.jsonl}}
"""
ROW = '{"id": "e1", "prompt": "is it?", "completion": " yes", "tags": ["negation"]}\n'


class Case:
    """A loop with one iteration in its log, and a cache."""

    def __init__(self, folder: Path, cache: Path, model: str = "tiny", identity: str = "") -> None:
        self.folder, self.cache = folder, cache
        self.file = folder / "sentiment.ftloop.yaml"
        self.file.write_text(LOOP.format(model=model))
        for role in ("train", "eval"):
            (folder / f"{role}.jsonl").write_text(ROW)
        (logged,) = find_logs(self.file, None, print)
        assert logged.config is not None
        inputs = Inputs.of(logged.config, None)
        fingerprint = inputs.fingerprint(logged.config, logged.config.settings)
        self.iteration = replace(
            fake_iteration(
                1,
                loop="sentiment",
                metrics=fake_metrics(0.25, **{"pass_rate[negation]": 0.5}),
                examples=[fake_example("e1", tags=("negation",))],
                findings=[fake_finding("plateau")],
            ),
            model=identity or inputs.model,
            fingerprint=fingerprint,
            id=fingerprint[:8],
            data={
                role: {"source": f"{role}.jsonl", "rows": 1, "sha256": f"{role}0123456789ab"}
                for role in ("train", "eval")
            },
        )
        self.log = ImprovementLog(folder / "improvement_log" / "sentiment")
        self.log.append(self.iteration)

    @property
    def made(self) -> Path:
        """Where an export goes when no folder is named."""
        return self.folder / f"sentiment-{self.iteration.name}"

    def adapter(self, base: str = "/where/it/was", **files: str) -> Path:
        """Put an adapter into the cache, as training does."""
        folder = self.cache / "adapters" / self.iteration.fingerprint
        folder.mkdir(parents=True)
        config = {"peft_type": "LORA", "base_model_name_or_path": base, "revision": None}
        texts = {"adapter_config.json": json.dumps(config), "README.md": "peft's own", **files}
        texts.setdefault("tokenizer_config.json", "{}")
        for name, text in {"adapter_model.safetensors": "weights", **texts}.items():
            (folder / name).write_text(text)
        return folder

    def embedded(self) -> Path:
        """The embedded model's folder, as far as an export looks at it."""
        folder = self.cache / "tiny" / recipe_id()
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
            (folder / name).write_text("{}")
        return folder


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Case]:
    """Make a case; the working folder is that of the loop."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("FTLOOP_CACHE", str(cache))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return lambda **given: Case(tmp_path / "work", cache, **given)


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "adapter_config.json").read_text()))


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The card's front matter, and its text."""
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# what is written


def test_export_of_the_best(case: Any, capsys: Capture) -> None:
    """Without arguments: the best iteration, into a folder named after it, and what to know."""
    made = case()
    base = made.embedded()
    made.adapter()
    assert 0 == main(["export"])
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert [*files, "tokenizer_config.json"] == names(made.made)
    assert (str(base), None) == tuple(
        config_of(made.made)[key] for key in ("base_model_name_or_path", "revision")
    )
    out = capsys.readouterr().out
    assert f"wrote {made.made.name}: the adapter and the model card of iteration" in out
    assert "the embedded model of pytest-ftloop" in out


def test_card(case: Any) -> None:
    """The card states figures with tags, data, settings, findings, environment and log id."""
    made = case()
    made.adapter()
    main(["export"])
    head, body = card_of(made.made)
    assert ("peft", None) == (head["library_name"], head.get("base_model"))
    (result,) = head["model-index"][0]["results"]
    figures = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert (0.25, 0.5) == (figures["eval_loss"], figures["pass_rate[negation]"])
    it = made.iteration
    for text in (
        f"# sentiment {it.name}",
        it.fingerprint,
        *(facts["sha256"] for facts in it.data.values()),
        "**plateau**",
    ):
        assert text in body
    rows = rows_of(body)
    for row in (["eval_loss", "0.2500"], ["negation", "1"], *map(list, it.environment.items())):
        assert row in [found[:2] for found in rows]
    assert "lora.r" in [found[0] for found in rows]


def test_hub_reads_the_card(case: Any) -> None:
    """The hub's own library finds base model and figures in the front matter."""
    hub = pytest.importorskip("huggingface_hub")
    made = case(model="owner/name@abc")
    made.adapter("owner/name")
    main(["export"])
    card = hub.ModelCard.load(made.made / "README.md")
    assert ("owner/name", "peft") == (card.data.base_model, card.data.library_name)
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert 0.25 == results["eval_loss"]


def test_verdicts_and_holdout(case: Any) -> None:
    """What was judged of the iteration, and what the holdout says of it, stands in the card."""
    from tests.fakes import fake_holdout_use, fake_judgement

    made = case()
    made.adapter()
    own = {"loop": "sentiment", "candidate": made.iteration.id}
    made.log.append_judgement(fake_judgement(**own, kind="improved", because="because of | it"))
    use = fake_holdout_use(made.iteration, [fake_example("h1")])
    made.log.append_holdout_use(replace(use, loop="sentiment"))
    main(["export"])
    _, body = card_of(made.made)
    assert "improved. because of &#124; it" in body
    assert f"which no decision used: eval_loss {use.metrics['eval_loss']:.4f}, pass_rate" in body


# the base model


DOUBTS = {
    "out of date": "training: {learning_rate: 9.0e-4}\n",
    "threshold": "gates: {eval_loss: '<= 0.1', overfit_gap: '<= 9'}\n",
    "verdict": "",
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_warnings(case: Any, capsys: Capture, doubt: str) -> None:
    """An iteration that is out of date or fails a gate is exported, and the card says it first."""
    made = case()
    made.embedded()
    made.adapter()
    made.file.write_text(f"{made.file.read_text()}{DOUBTS[doubt]}")
    if doubt == "verdict":
        made.log.append_judgement(
            Judgement(
                "sentiment",
                made.iteration.id,
                None,
                "gate",
                "regressed",
                passed=False,
                because="worse",
                over=(),
            )
        )
    assert 0 == main(["export"])
    err = capsys.readouterr().err
    said = {
        "out of date": "It is out of date: the settings, data, scoring or model of the loop file",
        "threshold": "A threshold of its loop does not hold: eval_loss 0.2500, wanted <= 0.1.",
        "verdict": "The regression gate failed: regressed: worse.",
    }[doubt]
    assert f"warning: iteration {made.iteration.name}: {said}" in err
    assert 1 == err.count("warning:")
    card = (made.made / "README.md").read_text(encoding="utf-8")
    assert card.index("**Warning.**") < card.index("A LoRA adapter:")
    assert 1 == card.count("**Warning.**")


def test_no_warning(case: Any, capsys: Capture) -> None:
    """An iteration that is up to date and fails nothing."""
    made = case()
    made.embedded()
    made.adapter()
    assert 0 == main(["export"])
    assert "warning" not in capsys.readouterr().err
    assert "Warning" not in (made.made / "README.md").read_text(encoding="utf-8")


def test_base_on_the_hub(case: Any) -> None:
    """A pinned hub model is named by id and revision, in the card too."""
    made = case(model="owner/name@abc")
    made.adapter("owner/name")
    main(["export", "-o", "out/adapter"])
    folder = made.folder / "out/adapter"
    assert ("owner/name", "abc") == tuple(
        config_of(folder)[key] for key in ("base_model_name_or_path", "revision")
    )
    head, body = card_of(folder)
    assert "owner/name" == head["base_model"]
    assert "Base model: owner/name at revision abc, on the hub." in body


def test_base_in_a_folder(case: Any, tmp_path: Path, capsys: Capture) -> None:
    """A model folder is named by its full path while it is what was trained on; else it is said."""
    folder = tmp_path / "work/models/base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    made = case(model="models/base")
    assert model_identity("models/base", made.folder) == made.iteration.model
    made.adapter("models/base")
    main(["export", str(made.file), "-o", "one"])
    assert str(folder) == config_of(made.folder / "one")["base_model_name_or_path"]
    assert str(tmp_path) not in (made.folder / "one/README.md").read_text()
    capsys.readouterr()
    (folder / "config.json").write_text('{"changed": 1}')
    assert 0 == main(["export", "1", "-o", "two"])
    assert "has changed since the training (models/base)" in capsys.readouterr().out
    assert 2 == main(["export", "1", "-o", "three", "--merged"])
    assert "can't be merged: the folder of the base model" in capsys.readouterr().err


def test_base_that_was_a_live_object(case: Any, capsys: Capture) -> None:
    """A model of Python has no place to load it from: the adapter is written, and that is said."""
    made = case(identity="live:abc")
    made.adapter("gpt2")
    assert 0 == main(["export"])
    assert "gpt2" == config_of(made.made)["base_model_name_or_path"]
    assert "was an object in Python, gpt2" in capsys.readouterr().out


def test_tokenizer_of_an_older_cache(case: Any, capsys: Capture) -> None:
    """An adapter that was cached without its tokenizer gets the base model's, where it is here."""
    made = case()
    base = made.embedded()
    (made.adapter() / "tokenizer_config.json").unlink()
    main(["export", "-o", "one"])
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(names(made.folder / "one"))
    assert "model.safetensors" not in names(made.folder / "one")
    (base / "config.json").unlink()
    main(["export", "-o", "two"])
    assert "tokenizer_config.json" not in names(made.folder / "two")
    assert "AutoTokenizer.from_pretrained(config.base_model" in card_of(made.folder / "two")[1]
    assert "tokenizer: not exported" in capsys.readouterr().out


# what is not there


def test_adapter_is_not_in_the_cache(case: Any, capsys: Capture) -> None:
    """An adapter that was trained elsewhere is an error with the command that makes it."""
    made = case()
    assert 2 == main(["export"])
    err = capsys.readouterr().err
    assert f"iteration {made.iteration.name} can't be exported: its adapter is not in this" in err
    assert "\n  Train it here: pytest --ftloop-retrain sentiment.ftloop.yaml\n" in err
    assert not made.made.exists()


def test_adapter_of_other_settings(case: Any, capsys: Capture) -> None:
    """Where the loop's own settings lead elsewhere, they have to be the iteration's first."""
    made = case()
    made.file.write_text(made.file.read_text() + "lora: {r: 2}\n")
    assert 2 == main(["export", "1"])
    file = "sentiment.ftloop.yaml"
    said = f"ftloop accept 1 {file} && pytest --ftloop-retrain {file}\n"
    assert said in capsys.readouterr().err


def test_iteration_without_an_adapter(case: Any, capsys: Capture) -> None:
    """An iteration whose losses were never finite has nothing to export, and says so."""
    made = case()
    facts = {**made.iteration.facts, "best_step": 0}
    for file in made.log.folder.iterdir():
        file.unlink()
    made.log.append(replace(made.iteration, facts=facts))
    assert 2 == main(["export"])
    assert "none of its eval losses was finite" in capsys.readouterr().err


# what exists


def test_nothing_is_replaced(case: Any, capsys: Capture) -> None:
    """A folder that holds anything is left alone; --force replaces an export, and only that."""
    made = case()
    made.adapter()
    made.made.mkdir()
    assert 0 == main(["export"])  # an empty one is no loss
    (made.made / "README.md").write_text("mine")
    assert 2 == main(["export"])
    assert "exists already" in capsys.readouterr().err
    assert "mine" == (made.made / "README.md").read_text()
    assert 0 == main(["export", "--force"])
    assert "mine" != (made.made / "README.md").read_text()
    (made.made / ".git").mkdir()
    assert 2 == main(["export", "--force"])
    assert "is not replaced: it contains .git" in capsys.readouterr().err
    assert (made.made / ".git").is_dir()


@pytest.mark.parametrize(
    ("files", "said"), [((), ""), (("README.md",), "adapter_config.json is missing")]
)
def test_force_is_for_exports(case: Any, capsys: Capture, files: Any, said: str) -> None:
    """--force does not replace the working folder, a repository or a folder of documents."""
    made = case()
    made.adapter()
    folder = made.folder / "docs"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("mine")
    code = main(["export", "--force", "-o", "docs"])
    assert (2 if files else 0) == code
    assert said in capsys.readouterr().err
    assert 2 == main(["export", "--force", "-o", "."])
    assert made.file.is_file()


def test_target_that_is_a_file(case: Any, capsys: Capture) -> None:
    """A file is never replaced."""
    made = case()
    made.adapter()
    (made.folder / "x").write_text("mine")
    assert 2 == main(["export", "--force", "-o", "x"])
    assert "x: wanted a folder to write into, found a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["adapter_config.json", "tokenizer_config.json"])
def test_a_damaged_adapter_is_not_exported(case: Any, capsys: Capture, name: str) -> None:
    """The log has the hash of its weights only: a wrong alpha in its config is as bad."""
    made = case()
    adapter = made.adapter()
    write_sums(adapter)
    assert 0 == main(["export"])
    assert "sha256.json" not in names(made.made)
    (adapter / name).write_text((adapter / name).read_text().replace("}", " }"))
    before = names(made.folder)
    assert 2 == main(["export", "-o", "again"])
    assert f"is damaged: {name} in this machine's cache is not" in capsys.readouterr().err
    assert before == names(made.folder)


def test_a_damaged_embedded_model_is_not_merged(case: Any, capsys: Capture) -> None:
    """The adapter was not trained on that."""
    made = case()
    made.adapter()
    folder = made.embedded()
    write_sums(folder)
    (folder / "model.safetensors").write_text("{]")
    assert 2 == main(["export", "--merged"])
    err = " ".join(capsys.readouterr().err.split())
    assert "the embedded model in this machine's cache is damaged" in err
    assert "the next training builds it again" in err


def test_an_export_that_was_killed_comes_back(case: Any) -> None:
    """Killed as it took the place of another one, the next finds the old one there."""
    made = case()
    made.adapter()
    main(["export"])
    made.made.rename(made.folder / f".{made.made.name}.999999999.1.old")
    (made.folder / f".{made.made.name}.999999999.1.tmp").mkdir()
    assert 2 == main(["export"])  # it exists
    assert [] == [name for name in names(made.folder) if name.startswith(".")]
    assert (made.made / "adapter_config.json").is_file()


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_an_export_is_never_left(
    case: Any, monkeypatch: pytest.MonkeyPatch, existing: bool, error: BaseException
) -> None:
    """Whatever ends an export: nothing of it is left, and what was there is as it was."""
    made = case()
    made.adapter()
    if existing:
        main(["export"])
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}

    def ended(*_: Any) -> None:
        raise error

    monkeypatch.setattr("pytest_ftloop.report.card.model_card", ended)
    assert main(["export", "--force"]) in (2, 130)
    after = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    assert before == after


def test_rename_that_fails(case: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Where the new folder can't take the old one's place, the old one is put back."""
    made = case()
    made.adapter()
    main(["export"])
    (made.made / "README.md").write_text("mine")

    def refuse(*_: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    assert 2 == main(["export", "--force"])
    assert "can't be written: Permission denied" in capsys.readouterr().err
    assert "mine" == (made.made / "README.md").read_text()
    assert [] == [name for name in names(made.folder) if name.startswith(".")]


# without torch


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which the training extra can't be imported."""
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy',"
        " 'huggingface_hub'):\n    sys.modules[name] = None\n"
    )
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{Path(__file__).parents[2]}"}


def test_export_without_torch(case: Any, without_torch: dict[str, str]) -> None:
    """The adapter is copied where torch is not installed; merging names the extra."""
    made = case()
    made.embedded()
    made.adapter()
    command = [sys.executable, "-m", "pytest_ftloop", "export"]
    options = {"cwd": made.folder, "env": without_torch, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **options)  # type: ignore[call-overload]
    assert (0, "") == (done.returncode, done.stderr)
    done = subprocess.run([*command, "--merged", "-o", "m"], check=False, **options)  # type: ignore[call-overload]
    assert 2 == done.returncode
    assert "merging needs the training extra: " in done.stderr
    assert 'pip install "pytest-ftloop[train]"' in done.stderr
    assert not (made.folder / "m").exists()


@pytest.mark.parametrize(
    "place",
    ["adapter_model.safetensors", "tokenizer.json", "adapter_config.json", "a/b", "", "device"],
)
def test_a_link_in_the_cache_is_not_followed(case: Any, capsys: Capture, place: str) -> None:
    """A file, a folder and the adapter's own folder; nor is anything but a file copied."""
    made = case()
    made.embedded()
    adapter = made.adapter()
    secret = made.folder.parent / "secret"
    secret.mkdir()
    (secret / "adapter_config.json").write_text("open-sesame")
    path = adapter / place if place else adapter
    if place == "a/b":
        path.parent.mkdir()
    if place == "":
        adapter.rename(secret / "adapter")
    elif path.exists():
        path.unlink()
    if place == "device":
        os.mkfifo(path)
    else:
        to = {"": secret / "adapter", "a/b": secret}.get(place, secret / "adapter_config.json")
        path.symlink_to(to)
    assert 2 == main(["export"])
    said = capsys.readouterr().err
    assert "wanted files only, found" in said
    assert path.name in said
    assert not made.made.exists()


@pytest.mark.parametrize(
    "identity",
    ["tiny:../../secret", "tiny:", "hub:../secret", "hub:/etc", "hub:~/x", "hub:a/b/c", "hub:"],
)
def test_the_base_of_a_record_is_no_path(case: Any, capsys: Capture, identity: str) -> None:
    """No file is taken from where a record leads, and nothing is merged with it."""
    made = case(identity=identity)
    folder = made.adapter()
    (folder / "tokenizer_config.json").unlink()
    for secret in (made.cache / "tiny", made.folder, made.folder.parent):
        (secret / "secret").mkdir(parents=True)
        (secret / "secret" / "tokenizer_config.json").write_text("open-sesame")
        (secret / "secret" / "config.json").write_text("{}")
    assert 2 == main(["export", "--merged"])
    assert "can't be merged" in capsys.readouterr().err
    assert 0 == main(["export"])
    assert not (made.made / "tokenizer_config.json").exists()


@pytest.mark.parametrize(
    "stated", ["trust_remote_code: true", "model_init_kwargs: {trust_remote_code: true}"]
)
@pytest.mark.parametrize(("named", "trusted"), [("owner/name", True), ("owner/other", False)])
def test_only_the_loop_file_trusts_a_models_code(
    case: Any, monkeypatch: pytest.MonkeyPatch, stated: str, named: str, trusted: bool
) -> None:
    """For the model that it names; what the record says of trust counts nothing."""
    made = case(model=named, identity="hub:owner/name")
    made.adapter()
    told: list[bool] = []
    monkeypatch.setattr(
        "pytest_ftloop.train.export._merge", lambda *_, trusts_code: told.append(trusts_code)
    )
    settings = replace(made.iteration.settings, training={"trust_remote_code": True})
    made.log.put(replace(made.iteration, settings=settings, number=2))
    assert 0 == main(["export", "last", "--merged"])
    assert [False] == told
    with made.file.open("a") as file:
        file.write(f"training: {{{stated}}}\n")
    assert 0 == main(["export", "last", "--merged", "--force"])
    assert [False, trusted] == told


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 9999, "version https://git-lfs"])
def test_a_damaged_configuration_in_the_cache_is_told(
    case: Any, capsys: Capture, content: str
) -> None:
    """It is one line with what to do, and nothing is exported."""
    made = case()
    made.embedded()
    (made.adapter() / "adapter_config.json").write_text(content)
    assert 2 == main(["export", "-o", "made"])
    said = capsys.readouterr().err
    assert "the adapter in this machine's cache is damaged (adapter_config.json can't be" in said
    assert "pytest --ftloop-retrain" in said
    assert "Traceback" not in said
    assert not (made.folder / "made").exists()
