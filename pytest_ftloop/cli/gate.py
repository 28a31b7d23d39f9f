"""`ftloop gate`: judge what is logged against a commit, without pytest and without torch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.cli.command import ERROR, FAILED, HOLDS, STALE, Command, report, terminal_width
from pytest_ftloop.cli.commits import Candidates, candidates, commit_arguments
from pytest_ftloop.core.errors import ConfigError, FtloopError, LogError, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from pytest_ftloop.config.gates import Gate, Regression
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.result import LoopResult

    Verdicts = tuple[tuple[Regression, Verdict], ...]

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
    lenient = to.add_mutually_exclusive_group()
    lenient.add_argument(
        "--report-only", action="store_true", help="say everything, but exit 0 whatever failed"
    )
    lenient.add_argument(
        "--stale-only",
        action="store_true",
        help="say everything, but exit 0 unless the log is out of date, incomplete or damaged",
    )
    to.add_argument("--json", action="store_true", help="print one JSON list, a loop an item")


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report.diff import to_json

    change, fail_on = _overrides(arguments), parse_fail_on(arguments.fail_on)
    codes: list[int] = []
    records: list[dict[str, Any]] = []
    with candidates(arguments) as found:
        for index, file in enumerate(found.files):
            try:
                code, record, lines = _judge(change(found.read(file)), found, fail_on)
            except FtloopError as error:
                report(error)
                code, lines = STALE if isinstance(error, LogError) else ERROR, []
                record = {"source": shown_path(file), "error": str(error)}
            codes.append(code)
            records.append({**record, "exit_code": code})
            if not arguments.json and lines:
                print("\n".join([*([""] if index else []), *lines]), flush=True)
    if arguments.json:
        print(to_json(records))
    forgiven = {FAILED} if arguments.stale_only else set()
    forgiven |= {FAILED, STALE} if arguments.report_only else set()
    return max(HOLDS if code in forgiven else code for code in codes)


def _judge(
    config: LoopConfig, found: Candidates, fail_on: frozenset[str] | None
) -> tuple[int, dict[str, Any], list[str]]:
    """One loop: its exit code, its record for JSON, its lines for the terminal."""
    result, verdicts = judged(config, found, fail_on)
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
    return exit_code(result, verdicts), record, loop_lines(result, verdicts, terminal_width())


def judged(
    config: LoopConfig, found: Candidates, fail_on: frozenset[str] | None
) -> tuple[LoopResult, Verdicts]:
    """The loop as its log has it, and the verdict by each of its regression gates."""
    if fail_on is not None:
        strict = tuple(sorted(fail_on - {"regressed"}))
        rules = tuple(replace(rule, fail_on=strict) for rule in config.regressions)
        config = replace(config, regressions=rules)
    result = replay(config, found).run()
    return result, tuple(
        (rule, _lenient(result.verdict_of(rule), fail_on)) for rule in result.regressions
    )


def loop_lines(result: LoopResult, verdicts: Verdicts, width: int) -> list[str]:
    """What the terminal says of one loop: each gate, and what a failed one rests on."""
    from pytest_ftloop.report.escape import shorten, visible
    from pytest_ftloop.report.verdict import explain_verdict, holdout_lines, verdict_lines

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
    return lines


def exit_code(result: LoopResult, verdicts: Verdicts) -> int:
    """What one loop's gates mean for the exit code."""
    if any(verdict.kind == "incomplete" for _, verdict in verdicts):
        return STALE
    failed = not all(gate.passed for gate in result.gates) or any(not v.ok for _, v in verdicts)
    return FAILED if failed else HOLDS


def replay(config: LoopConfig, found: Candidates) -> Loop:
    """The loop, ready to run by its log: a `StaleLogError` where something had to be trained."""
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.options import Options, in_ci

    log = found.log and found.log.absolute()
    explore = found.explore and not in_ci()
    options = Options(replay=True, explore=explore, baseline=found.base, log_folder=log)
    # Nothing is scored in a replay: any scorer serves in place of pytest's hook.
    return Loop(config, options, hook=lambda *_: False)


def _overrides(arguments: argparse.Namespace) -> Callable[[LoopConfig], LoopConfig]:
    """What the command line changes of a loop; one without the gate gets its defaults."""
    from pytest_ftloop.config.gates import Regression, parse_gate

    stated: dict[str, Gate] = {}
    for text in arguments.gate:
        match = re.fullmatch(r"\s*(.*?)\s*([<>]=?[^<>]*)", text, re.DOTALL)
        if match is None or not match[1]:
            raise ConfigError(
                f'--gate: wanted a metric and a condition, such as "eval_loss <= 0.3", found '
                f"{text!r}"
            )
        stated[match[1]] = parse_gate(match[1], match[2])
    changes: dict[str, Any] = {}
    for name, value, most in (
        ("alpha", arguments.alpha, 0.5),
        ("max_regression", arguments.max_regression, 1),
    ):
        if value is not None:
            if not 0 < value < most:
                option = name.replace("_", "-")
                raise ConfigError(
                    f"--{option}: wanted a number between 0 and {most}, found {value:g}"
                )
            changes[name] = value

    def change(config: LoopConfig) -> LoopConfig:
        gates = {**{gate.name: gate for gate in config.gates}, **stated}
        rules = config.regressions or (Regression(),)
        return replace(
            config,
            gates=tuple(gates.values()),
            regressions=tuple(replace(rule, **changes) for rule in rules),
        )

    return change


def parse_fail_on(stated: str | None) -> frozenset[str] | None:
    """The verdicts that `--fail-on` names; None where it is not given."""
    if stated is None:
        return None
    from pytest_ftloop.core.errors import did_you_mean

    kinds = [word.strip() for word in stated.split(",") if word.strip()]
    for kind in kinds:
        if kind not in FAIL_ON:
            raise ConfigError(
                f"--fail-on: unknown verdict {kind!r}", cure=did_you_mean(kind, FAIL_ON)
            )
    return frozenset(kind.replace("-", " ") for kind in kinds)


def _lenient(verdict: Verdict, fail_on: frozenset[str] | None) -> Verdict:
    """The verdict, passing where a regression is not among what is to fail."""
    if fail_on is None or verdict.kind != "regressed" or "regressed" in fail_on:
        return verdict
    return replace(verdict, ok=True)


COMMAND = Command(
    "gate",
    "judge the log against a commit",
    "Judge what is logged by the loop's gates, and against the last committed version. Nothing\n"
    "is trained, torch is not needed. A loop without a regression gate is compared by its\n"
    "defaults. Exit code: 0 all gates hold, 1 a gate failed or the model regressed, 2 usage or\n"
    "config error, 3 the log is out of date, incomplete or damaged.",
    (
        "ftloop gate",
        "ftloop gate main..HEAD",
        "ftloop gate --fail-on regressed,inconclusive examples",
        'ftloop gate --gate "pass_rate >= 0.95" --report-only',
    ),
    _arguments,
    _run,
)
