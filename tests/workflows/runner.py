"""GitHub's runner for tests: a checkout as actions/checkout makes it, and an action's steps.

job = checkout(remote, tmp_path / "job", PullRequest("feature"))
done = run_action(job, {"path": "."})
assert "improved" == done.outputs["verdict"]

Steps that use another action are noted, not run; so is `python -m pip`. But for actions/cache:
`run_action(job, cache=folder)` restores from that folder, and saves to it, what lies in the job's
own temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.gitfakes import GitRepo
from tests.github_fakes import REPOSITORY, outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "ftloop" / "action.yml"
PYTHON = """\
#!/usr/bin/env bash
if [[ "$1 $2" == "-m pip" ]]; then printf '%s\\0' "$@" >> "$PIP_CALLS"; else exec {real} "$@"; fi
"""


@dataclass(frozen=True)
class PullRequest:
    """What is proposed for `target`; the remote has its merge commit under refs/pull."""

    number: int = 1
    branch: str = "feature"
    target: str = "main"
    fork: bool = False


@dataclass(frozen=True)
class Job:
    """A checkout, and the environment that a step of the job has."""

    repo: GitRepo
    temp: Path
    env: dict[str, str]

    @property
    def event(self) -> Any:
        """What GitHub tells of the event."""
        return json.loads(Path(self.env["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))


@dataclass
class Done:
    """What came of an action: its outputs, what each step printed, and what it would have used."""

    outputs: dict[str, str] = field(default_factory=dict)
    code: int = 0
    printed: str = ""
    summary: str = ""
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)


def propose(repo: GitRepo, remote: GitRepo, request: PullRequest) -> None:
    """Push a branch, and the merge commit that GitHub makes of it."""
    repo.git("checkout", "--quiet", "--detach", request.target)
    repo.merge(request.branch)
    repo.git("push", "--quiet", str(remote.root), f"+HEAD:refs/pull/{request.number}/merge")
    if not request.fork:
        repo.git("push", "--quiet", "--force", str(remote.root), request.branch)
    repo.switch(request.branch)


def checkout(
    remote: GitRepo,
    folder: Path,
    request: PullRequest | None = None,
    *,
    depth: int = 0,
    branches: bool = True,
) -> Job:
    """What actions/checkout does: a push of main, or a pull request; all history or a part of it.

    Without `branches` the history of what is checked out is there, and no remote branch.
    """
    repo = GitRepo.init(folder / "work" / "name")
    temp = folder / "temp"
    temp.mkdir()
    repo.git("remote", "add", "origin", remote.root.as_uri())
    ref = f"refs/pull/{request.number}/merge" if request else "refs/heads/main"
    local = f"refs/remotes/{ref.removeprefix('refs/').replace('heads/', 'origin/')}"
    refs = [f"+{ref}:{local}"]
    if depth:
        refs.insert(0, f"--depth={depth}")
    elif branches:
        refs.insert(0, "+refs/heads/*:refs/remotes/origin/*")
    repo.git("fetch", "--quiet", "--no-tags", "origin", *refs)
    repo.git("checkout", "--quiet", "--force", *([local] if request else ["-B", "main", local]))
    event: dict[str, Any] = {"ref": ref, "after": repo.head}
    if request:
        head = remote.git("rev-parse", f"{ref}^2")
        owner = "forker" if request.fork else REPOSITORY.partition("/")[0]
        full_name = f"{owner}/name"
        event = {
            "number": request.number,
            "pull_request": {
                "number": request.number,
                "head": {
                    "ref": request.branch,
                    "sha": head,
                    "repo": {"full_name": full_name, "fork": request.fork},
                },
                "base": {
                    "ref": request.target,
                    "sha": remote.git("rev-parse", f"refs/heads/{request.target}"),
                    "repo": {"full_name": REPOSITORY, "fork": False},
                },
            },
        }
    (temp / "event.json").write_text(json.dumps(event), encoding="utf-8")
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "FTLOOP_CACHE", "OMP_NUM_THREADS")
    env = {name: os.environ[name] for name in kept if name in os.environ} | {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_BASE_REF": request.target if request else "",
        "GITHUB_EVENT_NAME": "pull_request" if request else "push",
        "GITHUB_EVENT_PATH": str(temp / "event.json"),
        "GITHUB_HEAD_REF": request.branch if request else "",
        "GITHUB_JOB": "train",
        "GITHUB_REF": ref,
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_RUN_ID": folder.name,
        "GITHUB_SHA": repo.head,
        "GITHUB_WORKSPACE": str(repo.root),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PYTHONPATH": str(ROOT),
        "RUNNER_ARCH": "X64",
        "RUNNER_OS": "Linux",
        "RUNNER_TEMP": str(temp),
    }
    return Job(repo, temp, env)


def run_action(
    job: Job,
    stated: Mapping[str, str] | None = None,
    action: Path = ACTION,
    cache: Path | None = None,
) -> Done:
    """Run a composite action's steps in order, as the runner does."""
    described = yaml.safe_load(action.read_text(encoding="utf-8"))
    assert set() == set(stated or {}) - set(described["inputs"])
    inputs = {name: at.get("default", "") for name, at in described["inputs"].items()}
    context = Context({**inputs, **(stated or {})}, job)
    done = Done()
    pip = job.temp / "pip"
    stubs = job.temp / "bin"
    stubs.mkdir(exist_ok=True)
    (stubs / "python").write_text(PYTHON.format(real=sys.executable))
    (stubs / "python").chmod(0o755)
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), job.env["PATH"]])
    for number, step in enumerate(described["runs"]["steps"]):
        condition = step.get("if", "success()")
        wanted = bool(context.value(condition))
        if not wanted or (done.code and "always()" not in condition):
            continue
        if "uses" in step:
            used = {name: context.text(str(value)) for name, value in step["with"].items()}
            name = step["uses"].partition("@")[0]
            done.used.append((name, used))
            if cache and name == "actions/cache/restore":
                restore(used, job, cache)
            if cache and name == "actions/cache/save":
                save(used, job, cache)
            continue
        assert "bash" == step["shell"]
        files = {name: job.temp / f"{number}.{name}" for name in ("output", "summary", "sh")}
        for file in files.values():
            file.write_text("")
        files["sh"].write_text(context.text(step["run"]), encoding="utf-8")
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(files["sh"])],
            cwd=job.repo.root,
            env={
                **job.env,
                **{name: context.text(value) for name, value in step.get("env", {}).items()},
                "GITHUB_ACTION_PATH": str(action.parent),
                "GITHUB_OUTPUT": str(files["output"]),
                "GITHUB_STEP_SUMMARY": str(files["summary"]),
                "PATH": path,
                "PIP_CALLS": str(pip),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        done.code = done.code or ran.returncode
        done.printed += ran.stdout
        done.summary += files["summary"].read_text(encoding="utf-8")
        if "id" in step:
            context.steps[step["id"]] = outputs(files["output"].read_text(encoding="utf-8"))
    done.outputs = {n: context.text(at["value"]) for n, at in described["outputs"].items()}
    done.installed = pip.read_text(encoding="utf-8").split("\0")[:-1] if pip.exists() else []
    return done


def restore(used: Mapping[str, str], job: Job, cache: Path) -> None:
    """What actions/cache/restore does: the entry of this key, else the newest with its prefix."""
    found = [cache / used["key"], *sorted(cache.iterdir(), key=lambda e: -e.stat().st_mtime_ns)]
    for entry in found:
        if entry.is_dir() and entry.name.startswith((used["key"], used["restore-keys"])):
            for number, path in cached(used, job):
                if (entry / number).exists():
                    shutil.copytree(entry / number, path)
            return


def save(used: Mapping[str, str], job: Job, cache: Path) -> None:
    """What actions/cache/save does: an entry is never replaced."""
    entry = cache / used["key"]
    if not entry.exists():
        entry.mkdir()
        for number, path in cached(used, job):
            if path.exists():
                shutil.copytree(path, entry / number)


def cached(used: Mapping[str, str], job: Job) -> list[tuple[str, Path]]:
    """The paths of an entry that are in the job's temporary folder, and what they are called."""
    paths = enumerate(Path(path) for path in used["path"].split("\n"))
    return [(str(number), path) for number, path in paths if job.temp in path.parents]


@dataclass
class Context:
    """What expressions know; as much of their language as actions of ours use."""

    inputs: Mapping[str, str]
    job: Job
    steps: dict[str, dict[str, str]] = field(default_factory=dict)

    def text(self, template: str) -> str:
        """A text with each `${{ }}` in it replaced by its value."""
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: str(self.value(m[1])), template, flags=re.S)

    def value(self, expression: str) -> Any:
        """The value of an expression: `&&`, `||` and truth are those of Python for texts."""
        parts = re.split(r"('(?:[^']|'')*')", expression)
        parts[::2] = [
            re.sub(
                r"(inputs|steps|runner|github)((?:\.[\w-]+)+)",
                lambda m: f"look({m[1]!r}, {m[2][1:]!r})",
                part.replace("&&", " and ").replace("||", " or "),
            )
            for part in parts[::2]
        ]
        known = {"look": self._look, "always": lambda: True, "success": lambda: True}
        hashed = {"hashFiles": lambda *_: "hash"}
        return eval("".join(parts).strip(), {"__builtins__": {}}, known | hashed)

    def _look(self, kind: str, name: str) -> str:
        if kind == "inputs":
            return self.inputs[name]
        if kind == "steps":
            step, _, output = name.split(".")
            return self.steps.get(step, {}).get(output, "")
        return self.job.env[f"{kind}_{name}".upper()]
