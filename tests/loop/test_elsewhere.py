"""Trainings on machines that share no disk: the log is the one that the loop writes here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.cache import adapter_folder, adapter_hash
from pytest_ftloop.core.errors import FtloopError, TrainingError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import EvalPoint
from pytest_ftloop.data import examples as data
from pytest_ftloop.loop import shipped
from pytest_ftloop.loop import spec as specs
from pytest_ftloop.loop.executor import EngineError
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.parcel import Packer
from pytest_ftloop.loop.remote import RemoteBackend
from pytest_ftloop.train.early_end import Pace
from pytest_ftloop.train.task import EVAL as EVAL_ROLE
from pytest_ftloop.train.task import Missing, ToMeasure
from tests.fake_elsewhere import Elsewhere, FakeElsewhere
from tests.loops import EVAL, TRAIN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

LIST = "policy: [{training.learning_rate: 4.0e-4}, {training.learning_rate: 8.0e-4}]"


@dataclass
class Project:
    """A repository with a loop in a subfolder, whose data and code are in several places."""

    root: Path
    kill: Path
    elsewhere: Elsewhere

    @property
    def folder(self) -> Path:
        return self.root / "loops"

    def put(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write(self, loop: str = "iterations: 1", more: str = "", data: str = "") -> None:
        """Write the loop file, whose trainings run elsewhere."""
        self.put(
            "loops/x.ftloop.yaml",
            f"data: {{train: ../data/train.jsonl, eval: eval.jsonl{data}}}\n"
            "lora: {r: 8, lora_alpha: 16}\n"
            "training: {learning_rate: 2.0e-4, num_train_epochs: 2}\n"
            f"loop: {{run_on: there, {loop}}}\n{more}",
        )

    def loop(self, here: bool = False, **options: Any) -> Loop:
        """The loop; with `here` it trains in this process."""
        config = read_loop_file(self.folder / "x.ftloop.yaml")
        if here:
            config = replace(config, loop=config.loop.model_copy(update={"run_on": None}))
        return Loop(
            config,
            Options(**options),
            backend=FakeElsewhere,
            executor_hook=lambda name, stated, count: self.elsewhere,
        )

    def log(self) -> dict[str, bytes]:
        """The log's files, byte for byte."""
        root = self.folder / "improvement_log"
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    def in_turn(self, run: Callable[[Loop], object] = Loop.run) -> dict[str, bytes]:
        """The log that the loop writes here; it is not there any more, nor are its adapters."""
        run(self.loop(here=True, parallel=1))
        log = self.log()
        for name in log:
            (self.folder / "improvement_log" / name).unlink()
        self.trained()
        return log

    def trained(self) -> list[str]:
        """One line for each training; it is forgotten then."""
        file = self.root.parent / "trained"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project and a cache, both of which are hidden while a worker is at work."""
    root, cache = tmp_path / "project", tmp_path / "cache"
    made = Project(root, tmp_path / "kill", Elsewhere(tmp_path / "there", [root, cache]))
    for folder in (root / ".git", root / "loops", cache, made.kill, made.elsewhere.cache):
        folder.mkdir(parents=True)
    for name, rows in (("data/train.jsonl", TRAIN), ("loops/eval.jsonl", EVAL)):
        made.put(name, "".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "FAKE_STEP_S", "FAKE_HANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FTLOOP_CACHE", str(cache))
    monkeypatch.setenv("FAKE_TRAINED", str(tmp_path / "trained"))
    monkeypatch.setenv("FAKE_KILL", str(made.kill))
    monkeypatch.setenv("FAKE_NOISE", "0.02")
    monkeypatch.setenv("FAKE_BASE", "1")
    made.write()
    return made


@pytest.mark.parametrize("parallel", [1, 3])
def test_log(project: Project, parallel: int) -> None:
    """It is the log of trainings here, byte for byte; the adapters are in this cache, too."""
    project.write(f"seeds: 2, {LIST}")
    wanted = project.in_turn()
    result = project.loop(parallel=parallel).run()
    assert wanted == project.log()
    assert 4 == len(project.trained())
    assert result.best.adapter == adapter_hash(adapter_folder(result.best.weights))
    cache = project.elsewhere.hidden[1]
    assert [] == list((cache / "workers").iterdir())
    assert [] == list(project.elsewhere.cache.glob("shipped/*/cache/workers/*"))


def test_pace(project: Project) -> None:
    """What ends a hopeless run early is sent: the curve of the best iteration so far."""
    project.write("iterations: 3, patience: 9")
    wanted = project.in_turn()
    chain = project.loop().run().chain
    assert wanted == project.log()
    paces = [spec.pace for spec in project.elsewhere.specs if spec.asks == "train"]
    assert [None, chain[0].evals, chain[1].evals] == [pace and pace.evals for pace in paces]


CODE = {
    "loops/scorers.py": "from pathlib import Path\nimport beside\nfrom common import norm\n"
    "import of_src\nfrom setting import of_pythonpath\n"
    "WORDS = Path(__file__).with_name('words') / 'all.txt'\n"
    "def score(output, expected, example):\n"
    "    assert WORDS.read_text() == 'all'\n"
    "    return norm.same(beside.plain(output), of_src.plain(of_pythonpath.plain(expected)))\n",
    "loops/beside.py": "def plain(text): return text\n",
    "loops/rows.py": "import json\nfrom pathlib import Path\ndef train():\n"
    "    lines = Path(__file__).with_name('given.jsonl').read_text().splitlines()\n"
    "    return [json.loads(line) for line in lines]\n",
    "loops/given.jsonl": "".join(f"{json.dumps(row)}\n" for row in TRAIN),
    "loops/words/all.txt": "all",
    "common/__init__.py": "",
    "common/norm.py": "def same(a, b): return a == b\n",
    "src/of_src.py": "def plain(text): return text\n",
    "lib/setting/of_pythonpath.py": "def plain(text): return text\n",
    "pytest.ini": "[pytest]\npythonpath = lib\n",
}


def test_code(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's code is sent with all local modules that it imports, and with what it reads."""
    for name, text in CODE.items():
        project.put(name, text)
    project.write("ship: [words, given.jsonl]", "scoring: {scorer: 'scorers:score'}\n")
    file = project.folder / "x.ftloop.yaml"
    file.write_text(file.read_text().replace("../data/train.jsonl", "rows:train"))
    for place in ("lib", "src", ""):
        monkeypatch.syspath_prepend(project.root / place)
    wanted = project.in_turn()
    project.loop().run()
    assert wanted == project.log()
    sent = {Path("/", name) for name in project.elsewhere.sent[0].files}
    assert sent >= {project.root / name for name in CODE}


def test_rows_that_are_sent(project: Project) -> None:
    """Guards are sent; the holdout only where it is opened, and other files of the folder never."""
    project.put("loops/other.jsonl", json.dumps(EVAL[0] | {"id": "g0"}))
    project.put("loops/held.jsonl", json.dumps(EVAL[0] | {"id": "h0", "prompt": "who?"}))
    project.put("loops/unused.jsonl", json.dumps(EVAL[0]))
    project.write(data=", holdout: held.jsonl, guards: {other: other.jsonl}")
    project.loop().run()
    names = {Path(name).name for name in project.elsewhere.sent[0].files}
    assert {"x.ftloop.yaml", "train.jsonl", "eval.jsonl", "other.jsonl"} == names


def test_absolute_paths_are_not_sent(project: Project) -> None:
    """They name what the machines share, which is read there."""
    shared = project.root.parent / "shared.jsonl"
    (project.root / "data/train.jsonl").rename(shared)
    project.write()
    file = project.folder / "x.ftloop.yaml"
    file.write_text(file.read_text().replace("../data/train.jsonl", str(shared)))
    wanted = project.in_turn()
    project.loop().run()
    assert wanted == project.log()
    assert "shared.jsonl" not in {Path(name).name for name in project.elsewhere.sent[0].files}


def test_nothing_of_the_environment_is_sent(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable's value is in what is sent."""
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "ANY"):
        monkeypatch.setenv(name, f"secret-of-{name}")
    project.write(f"seeds: 2, {LIST}")
    project.loop().run()
    for parcel in project.elsewhere.sent:
        spec = json.loads(parcel.as_text())
        assert "secret-of-" not in json.dumps(spec)
    kept = [p for p in project.elsewhere.cache.rglob("*") if p.is_file()]
    assert kept
    assert not [p for p in kept if b"secret-of-" in p.read_bytes()]


def direct(project: Project) -> tuple[FakeElsewhere, RemoteBackend, Any]:
    """A backend of this process and one elsewhere, of the same loop, and its inputs."""
    config = project.loop().config
    inputs = Inputs.of(config, None)
    remote = RemoteBackend(
        config, inputs, Silent(), lambda _: project.elsewhere, project.folder / "improvement_log"
    )
    return FakeElsewhere(config, inputs, Silent()), remote, inputs


def test_each_call_of_a_backend(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the loop asks of a backend, it gets the answer that it would get here."""
    monkeypatch.setenv("FAKE_TELL", "1")
    project.put("loops/held.jsonl", json.dumps(EVAL[0] | {"id": "h0", "prompt": "who?"}))
    project.write(data=", holdout: held.jsonl")
    here, remote, inputs = direct(project)
    settings, adapter = project.loop().config.settings, project.root / "adapter"
    pace = Pace((EvalPoint(2, 1.0, 1.5, 0.5), EvalPoint(4, 2.0, 1.25, 0.5)), 4, 1.125)
    how: Any = {"name": "n", "metric": "pass_rate", "base_eval_loss": 3.5, "pace": pace}
    run = here.train(settings, adapter=adapter, **how)
    assert {name: str(value) for name, value in how.items()}.items() <= run.environment.items()
    assert run == remote.train(settings, adapter=adapter, **how)
    assert here.environment(settings) == remote.environment(settings)
    assert here.measure_base(settings) == remote.measure_base(settings)
    config = project.loop().config
    holdout = data.load(config.holdout, "holdout", config.folder, config.columns)
    assert here.measure(settings, adapter, holdout) == remote.measure(settings, adapter, holdout)
    missing = ToMeasure({EVAL_ROLE: Missing(losses=inputs.eval.examples[1:3])}, {})
    found = here.measure_missing(settings, adapter, missing)
    assert 2 == len(found.trained[EVAL_ROLE].losses)
    assert found == remote.measure_missing(settings, adapter, missing)
    remote.end(logged=True)


def test_a_complete_run_is_sent_back_and_taken(project: Project) -> None:
    """What an interrupted process has not logged is not trained again, whichever machine is asked.

    Its adapter is that of this cache.
    """
    _, remote, _ = direct(project)
    settings, adapter = project.loop().config.settings, project.root / "adapter"
    run = remote.train(settings, name="n", adapter=adapter)
    remote.end(logged=False)
    assert 1 == len(project.trained())
    again = remote.train(settings, name="n", adapter=adapter)
    remote.end(logged=True)
    assert run == again
    assert run.adapter == adapter_hash(adapter)
    assert [] == project.trained()


FAILS = """\
def score(output, expected, example):
    return 1 / 0 if output == "wrong" else True
"""
"""It is tried before anything is sent, and fails on what a model says."""


def test_a_mistake_names_the_users_files(project: Project) -> None:
    """It has the place that it would have here: the user has no file on the other machine."""
    project.put("loops/scorers.py", FAILS)
    project.write(more="scoring: {scorer: 'scorers:score'}\n")
    with pytest.raises(FtloopError) as here:
        project.loop(here=True).run()
    with pytest.raises(FtloopError) as there:
        project.loop().run()
    assert "ZeroDivisionError" in str(there.value)
    assert type(here.value) is type(there.value)
    assert str(here.value) == str(there.value)


def test_killed_worker(project: Project) -> None:
    """A training whose worker is killed once is sent again; twice, and its error says so."""
    wanted = project.in_turn()
    (project.kill / "0.0002").touch()
    project.loop().run()
    assert wanted == project.log()
    (project.kill / "0.0002").write_text("always", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"x: its worker was killed by SIGKILL"):
        project.loop(retrain=True).run()


@pytest.mark.parametrize(
    ("ship", "message"),
    [
        ("[none.txt]", r"loop.ship: wanted files and .* found 'none.txt', which is missing"),
        ("[/etc/hostname]", r"loop.ship: wanted .* found '/etc/hostname', which is absolute"),
    ],
)
def test_nothing_to_ship(project: Project, ship: str, message: str) -> None:
    """What `loop.ship` lists has to be there; nothing is trained or logged."""
    project.write(f"ship: {ship}")
    with pytest.raises(EngineError, match=rf"loops/x.ftloop.yaml:4: {message}"):
        project.loop().run()
    assert {} == project.log()


def test_other_content(project: Project) -> None:
    """A file that comes with another content than was sent is refused."""
    config = project.loop().config
    inputs = Inputs.of(config, None)
    file = specs.Spec(
        str(config.file), "log", inputs.fingerprint(config, config.settings), config.settings,
        "n", "", "eval_loss",
    ).write()  # fmt: skip
    parcel = Packer().pack(file)
    contents = dict.fromkeys(parcel.contents, b"other")
    with pytest.raises(FtloopError, match="came with other content than was sent"):
        shipped.work(parcel.as_text(), contents)


def test_a_link_as_the_loops_folder(project: Project, tmp_path: Path) -> None:
    """A loop in a folder that is a link is trained as any other, with the code beside it."""
    project.put("loops/scorers.py", CODE["common/norm.py"].replace("same(a, b)", "score(a, b, e)"))
    project.write(more="scoring: {scorer: 'scorers:score'}\n")
    wanted = project.in_turn()
    link = project.root / "link"
    link.symlink_to(project.folder, target_is_directory=True)
    Loop(
        read_loop_file(link / "x.ftloop.yaml"),
        executor_hook=lambda name, stated, count: project.elsewhere,
    ).run()
    assert wanted == project.log()


def test_other_modules_of_the_machine_do_not_count(project: Project, tmp_path: Path) -> None:
    """A namesake of an imported module, above the other machine's cache, is not taken for it."""
    (tmp_path / "missing_here.py").write_text("X = 1\n")
    project.put(
        "loops/scorers.py",
        "try:\n    import missing_here\nexcept ImportError:\n    pass\n"
        "def score(output, expected, example): return True\n",
    )
    project.write(more="scoring: {scorer: 'scorers:score'}\n")
    wanted = project.in_turn()
    project.loop().run()
    assert wanted == project.log()


def test_processes_end(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker does all that is asked, and is not left when the executor is closed."""
    started: list[subprocess.Popen[str]] = []
    close = Elsewhere.close

    def closed(executor: Elsewhere) -> None:
        started.extend(w.process for p in shipped._open.values() for w in p._workers)
        assert [None] == [process.poll() for process in started]
        close(executor)

    monkeypatch.setattr(Elsewhere, "close", closed)
    project.write(f"seeds: 1, {LIST}")
    project.loop().run()
    assert 1 == len(started)
    assert started[0].poll() is not None
