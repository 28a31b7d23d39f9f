"""`ftloop gate`: judge what is logged against a commit, without pytest and without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.cli.command import (
    FAILED,
    HOLDS,
    STALE,
    Command,
    report,
    terminal_width,
)
from pytest_ftloop.cli.commits import candidates, commit_arguments
from pytest_ftloop.errors import ConfigError, FtloopError, LogError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pytest_ftloop.compare.verdict import Verdict
    from pytest_ftloop.config import LoopConfig
    from pytest_ftloop.gates import Regression
    from pytest_ftloop.result import LoopResult

FAIL_ON = ("regressed", "inconclusive", "not-comparable")


def _arguments(to: argparse.ArgumentParser) -> None:
    commit_arguments(to)
    to.add_argument(
        "--fail-on",
        metavar="VERDICTS",
        help=f"comma-separated, of {', '.join(FAIL_ON)}: which verdicts fail, in place of the "
        "loop file's fail_on (default: regressed); incomplete records fail always",
    )
    to.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="CONDITION",
        help='judge by this threshold too, in place of the loop file\'s own: "eval_loss <= 0.3"',
    )
    to.add_argument("--alpha", type=float, metavar="P", help="in place of the loop file's alpha")
    to.add_argument(
        "--max-regression",
        type=float,
        metavar="SHARE",
        help="in place of the loop file's max_regression",
    )
    to.add_argument(
        "--report-only", action="store_true", help="say everything, but exit 0 whatever failed"
    )
    to.add_argument("--json", action="store_true", help="print one JSON list, a loop an item")


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report.diff import to_json

    fail_on = _fail_on(arguments.fail_on)
    codes: list[int] = []
    records: list[dict[str, Any]] = []
    with candidates(arguments) as found:
        for index, file in enumerate(found.files):
            try:
                code, record, lines = _judge(file, found.base, arguments, fail_on)
            except LogError as error:
                report(error)
                code, record, lines = STALE, {"source": str(file), "error": str(error)}, []
            except FtloopError as error:
                code, record, lines = report(error), {"source": str(file), "error": str(error)}, []
            codes.append(code)
            records.append({**record, "exit_code": code})
            if not arguments.json and lines:
                print("\n".join([*([""] if index else []), *lines]), flush=True)
    if arguments.json:
        print(to_json(records))
    worst = max(codes)
    return HOLDS if arguments.report_only and worst in (FAILED, STALE) else worst


def _judge(
    file: Path, base: str | None, arguments: argparse.Namespace, fail_on: frozenset[str] | None
) -> tuple[int, dict[str, Any], list[str]]:
    """One loop: its exit code, its record for JSON, its lines for the terminal."""
    from pytest_ftloop.config import read_loop_file
    from pytest_ftloop.report.escape import shorten, visible
    from pytest_ftloop.report.verdict import explain_verdict, holdout_lines, verdict_lines

    config = _overridden(read_loop_file(file), arguments)
    result, width = replayed(config, base, arguments.log), terminal_width()
    verdicts = [(rule, _strict(result.verdict_of(rule), fail_on)) for rule in result.regressions]
    lines = [shorten(f"{visible(result.loop)}: iteration {result.best.name}", width)]
    for gate in result.gates:
        held = "holds " if gate.passed else "FAILED"
        lines.append(shorten(f"{held}  {visible(gate.message)}", width))
    for rule, verdict in verdicts:
        if verdict.ok:
            lines += verdict_lines(verdict, rule.name, width)
        else:
            lines += ["FAILED", explain_verdict(result, verdict, rule, width)]
    if holdout := result.holdout:
        lines += holdout_lines(holdout, width)
    record = {
        "loop": result.loop,
        "source": result.source,
        "iteration": result.best.name,
        "against": verdicts[0][1].against,
        "gates": [
            {"gate": g.gate.text, "figure": g.value, "passed": g.passed} for g in result.gates
        ],
        "verdicts": [{"gate": rule.name, **v.as_record()} for rule, v in verdicts],
    }
    if any(verdict.kind == "incomplete" for _, verdict in verdicts):
        return STALE, record, lines
    failed = not all(gate.passed for gate in result.gates) or any(not v.ok for _, v in verdicts)
    return (FAILED if failed else HOLDS), record, lines


def replayed(config: LoopConfig, base: str | None, log: Path | None) -> LoopResult:
    """The loop as its log has it. A `StaleLogError` where something would have to be trained."""
    from pytest_ftloop.loop import Loop, Options

    options = Options(replay=True, baseline=base, log_folder=log and log.absolute())
    # Nothing is scored in a replay: any scorer serves in place of pytest's hook.
    return Loop(config, options, hook=lambda *_: False).run()


def _overridden(config: LoopConfig, arguments: argparse.Namespace) -> LoopConfig:
    """The loop with the thresholds of the command line; one without the gate gets its defaults."""
    from pytest_ftloop.gates import Regression, parse_gate

    gates = {gate.name: gate for gate in config.gates}
    for stated in arguments.gate:
        name, _, condition = stated.strip().partition(" ")
        if not condition:
            raise ConfigError(
                f'--gate: wanted a metric and a condition, such as "eval_loss <= 0.3", found '
                f"{stated!r}"
            )
        gates[name] = parse_gate(name, condition)
    for name, value in (("alpha", arguments.alpha), ("max-regression", arguments.max_regression)):
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"--{name}: wanted a number between 0 and 1, found {value:g}")
    changes = {
        name: value
        for name, value in (
            ("alpha", arguments.alpha),
            ("max_regression", arguments.max_regression),
        )
        if value is not None
    }
    rules: Sequence[Regression] = config.regressions or (Regression(),)
    return replace(
        config,
        gates=tuple(gates.values()),
        regressions=tuple(replace(rule, **changes) for rule in rules),
    )


def _fail_on(stated: str | None) -> frozenset[str] | None:
    if stated is None:
        return None
    from pytest_ftloop.errors import did_you_mean

    kinds = [word.strip() for word in stated.split(",") if word.strip()]
    for kind in kinds:
        if kind not in FAIL_ON:
            raise ConfigError(
                f"--fail-on: unknown verdict {kind!r}", cure=did_you_mean(kind, FAIL_ON)
            )
    return frozenset(kind.replace("-", " ") for kind in kinds)


def _strict(verdict: Verdict, fail_on: frozenset[str] | None) -> Verdict:
    """The verdict, failing where the command line says so."""
    if fail_on is None or verdict.kind == "incomplete":
        return verdict
    return replace(verdict, ok=verdict.kind not in fail_on)


COMMAND = Command(
    "gate",
    "judge the log against a commit",
    "Judge what is logged by the loop's gates, and against the last committed version. Nothing is\n"
    "trained, torch is not needed. A loop without a regression gate is compared by its defaults.\n"
    "Exit code: 0 all gates hold, 1 a gate failed or the model regressed, 2 usage or config error,\n"
    "3 the log is out of date or incomplete.",
    (
        "ftloop gate",
        "ftloop gate main..HEAD",
        "ftloop gate --fail-on regressed,inconclusive examples",
        'ftloop gate --gate "pass_rate >= 0.95" --report-only',
    ),
    _arguments,
    _run,
)
