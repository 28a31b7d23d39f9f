"""`ftloop gate`: judge the log by its gates and against a commit, without pytest or torch."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.cli.command import ERROR, FAILED, HOLDS, STALE, Command, report, terminal_width
from pytest_ftloop.cli.commits import Candidates, candidates, commit_arguments
from pytest_ftloop.cli.json_output import items_of, json_argument
from pytest_ftloop.core.errors import ConfigError, FtloopError, LogError, shown_path
from pytest_ftloop.core.files import real

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_ftloop.config.gates import Gate, Regression
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.result import LoopResult

FAIL_ON = ("regressed", "inconclusive", "not-comparable")
"""The verdicts that --fail-on accepts. The first fails in any case."""


def _arguments(to: argparse.ArgumentParser) -> None:
    commit_arguments(to)
    fail_on_argument(to)
    to.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="CONDITION",
        help='also check this threshold: "eval_loss <= 0.3"; replaces the loop file\'s gate on the '
        "same metric",
    )
    to.add_argument("--alpha", type=float, metavar="P", help="replaces the loop file's alpha")
    to.add_argument(
        "--max-regression",
        type=float,
        metavar="SHARE",
        help="replaces the loop file's max_regression",
    )
    lenient = to.add_mutually_exclusive_group()
    lenient.add_argument(
        "--report-only",
        action="store_true",
        help="print everything, but exit with 0 whatever fails",
    )
    lenient.add_argument(
        "--stale-only",
        action="store_true",
        help="print everything, but exit with 0 unless the log is out of date, incomplete or "
        "damaged",
    )
    json_argument(to)


def fail_on_argument(to: argparse.ArgumentParser) -> None:
    """Add `--fail-on`, as `fail_on`: the text that `parse_fail_on` reads."""
    to.add_argument(
        "--fail-on",
        metavar="VERDICTS",
        help="verdicts that fail too, beside those in the loop file's fail_on: "
        f"{' or '.join(FAIL_ON[1:])}, or both, separated by a comma; regressed and incomplete "
        "always fail",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report.as_json.items import gate_item

    fail_on = parse_fail_on(arguments.fail_on)
    codes: list[int] = []

    def tell(source: str, judged: LoopResult | FtloopError) -> None:
        if isinstance(judged, FtloopError):
            report(judged)
            codes.append(error_code(judged))
            items.failed(source, judged, codes[-1])
            return
        if not arguments.json:
            lines = loop_lines(judged, terminal_width())
            print("\n".join([*([""] if codes else []), *lines]), flush=True)
        codes.append(exit_code(judged))
        items.add(lambda: gate_item(judged, codes[-1]))

    with items_of("gate", wanted=arguments.json) as items, candidates(arguments) as found:
        stated = _stated(arguments, found)
        found.check_names()
        done: list[LoopResult | Path] = []
        for file in found.files:
            judged = _judged(file, found, stated, fail_on)
            done += judged.done
            tell(shown_path(file), judged.result)
        for source, result in found.rest(done, stated.default(fail_on), stated.on_log):
            tell(source, result)
        if not codes and not (arguments.staged or arguments.stale_only):
            found.check_not_empty()
    if not arguments.json and not codes:
        print("nothing to judge: no loop file, and no improvement log")
    forgiven = {FAILED} if arguments.stale_only else set()
    forgiven |= {FAILED, STALE} if arguments.report_only else set()
    return max((HOLDS if code in forgiven else code for code in codes), default=HOLDS)


@dataclass(frozen=True)
class Judged:
    """A loop file's result or error, and what `Candidates.rest` has to know of it."""

    result: LoopResult | FtloopError
    done: tuple[LoopResult | Path, ...]


def _judged(
    file: Path,
    found: Candidates,
    stated: Stated,
    fail_on: frozenset[str],
) -> Judged:
    from pytest_ftloop.loop.replay import replay

    done: tuple[LoopResult | Path, ...] = (found.likely_log_folder(file),)
    try:
        config = stated.on(found.read(file))
        done = (found.log_folder(config),)
        result = replay(config, found.options(), fail_on)
    except FtloopError as error:
        return Judged(error, done)
    return Judged(result, (*done, result))


def loop_lines(result: LoopResult, width: int) -> list[str]:
    """One loop as terminal text: what changed in its gates, every gate, evidence of failed ones."""
    from pytest_ftloop.report.escape import shorten, visible
    from pytest_ftloop.report.gate_changes import change_lines, gate_text
    from pytest_ftloop.report.layout import paragraph
    from pytest_ftloop.report.verdict import explain_verdict, holdout_lines, verdict_lines

    lines = [shorten(f"{visible(result.loop)}: iteration {result.best.name}", width)]
    lines += change_lines(result.gate_changes, width)
    for gate in result.gates:
        held = "holds " if gate.passed else "FAILED"
        text = visible(gate_text(gate, result.gate_changes))
        lines += paragraph(f"{held}  {text}", width, "", "        ")
    for rule, verdict in result.verdicts:
        if verdict.ok:
            lines += verdict_lines(verdict, rule.name, width)
        else:
            lines += ["FAILED", explain_verdict(result, verdict, rule, width)]
    if result.holdout:
        lines += holdout_lines(result.holdout, width)
    return lines


def error_code(error: FtloopError) -> int:
    """The exit code for a loop that could not be judged."""
    from pytest_ftloop.gate.standards import UnjudgedError

    if isinstance(error, UnjudgedError):
        return FAILED
    return STALE if isinstance(error, LogError) else ERROR


def exit_code(result: LoopResult) -> int:
    """The exit code for one loop: an incomplete record (STALE) outranks a failed gate."""
    verdicts = [verdict for _, verdict in result.verdicts]
    if any(verdict.kind == "incomplete" for verdict in verdicts):
        return STALE
    held = all(gate.passed for gate in result.gates) and all(verdict.ok for verdict in verdicts)
    return HOLDS if held else FAILED


@dataclass(frozen=True)
class Stated:
    """What `--gate` (`thresholds`), `--alpha` and `--max-regression` (`options`) state.

    `own` are the thresholds on metrics that only some of the loops have: these judge no other loop.
    """

    thresholds: tuple[Gate, ...]
    options: Mapping[str, Any]
    own: tuple[Gate, ...] = ()

    def on_log(self, log: ImprovementLog) -> tuple[Gate, ...]:
        """The thresholds that judge a log without a loop file."""
        has = {name for it in log.read() for name in it.metrics} if self.own else set()
        return tuple(g for g in self.thresholds if g not in self.own or g.metric in has)

    def on(self, config: LoopConfig) -> LoopConfig:
        """A loop with this in its gates; without a regression gate it gets the default one."""
        # By name, so that a gate of the command line replaces the loop file's on the same metric.
        from pytest_ftloop.config.gates import DEFAULT_REGRESSION, check_scores
        from pytest_ftloop.config.scoring import scores_of
        from pytest_ftloop.core.metrics import is_score

        own, given = _metrics_of(config), scores_of(config.scoring)
        # A scorer of the user's own may give any score.
        asked = [
            gate
            for gate in self.thresholds
            if gate not in self.own
            or gate.metric in own
            or (given is None and is_score(gate.metric))
        ]
        if given is not None:
            check_scores(asked, None, given, config.scoring, lambda _: None)
        gates = {gate.name: gate for gate in (*config.gates, *asked)}
        rules = config.regressions or (DEFAULT_REGRESSION,)
        return replace(
            config,
            gates=tuple(gates.values()),
            regressions=tuple(replace(rule, **self.options) for rule in rules),
            forgetting=tuple(replace(rule, **self.options) for rule in config.forgetting),
        )

    def default(self, fail_on: frozenset[str]) -> Regression:
        """The gate of a loop without a loop file."""
        from pytest_ftloop.config.gates import DEFAULT_REGRESSION
        from pytest_ftloop.loop.replay import stricter_rule

        return stricter_rule(replace(DEFAULT_REGRESSION, **self.options), fail_on)


def _metrics_of(config: LoopConfig) -> Mapping[str, str]:
    """A loop's metrics of the whole set and the scores of its built-in scorer, by name."""
    from pytest_ftloop.config.scoring import scores_of

    return {**config.metrics, **dict.fromkeys(scores_of(config.scoring) or (), "")}


def _loops_metrics(found: Candidates) -> dict[str, Mapping[str, str]]:
    """The metrics that each loop has of its own, by the loop's name.

    Of a log without a loop file those that its iterations have.
    """
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.workspace import log_folders

    known: dict[str, Mapping[str, str]] = {}
    logs = {real(folder): folder for folder in log_folders(found.scope, found.log)}
    for file in found.files:
        with suppress(FtloopError):  # a broken loop file is reported when it is judged
            config = found.read(file)
            known[config.name] = {**known.get(config.name, {}), **_metrics_of(config)}
            logs.pop(real(found.log_folder(config)), None)
    for folder in logs.values():
        with suppress(FtloopError):  # a damaged log, too
            names = _logged_metrics(ImprovementLog(folder).read())
            known[folder.name] = {**known.get(folder.name, {}), **dict.fromkeys(names, "")}
    return known


def _logged_metrics(iterations: Iterable[Iteration]) -> list[str]:
    """The scores and metrics of the whole set that these iterations have.

    Those of guards and of several samples are known by their names.
    """
    from pytest_ftloop.core.metrics import METRICS, split_name, without_guard
    from pytest_ftloop.core.sampled import is_sampled_metric

    names = dict.fromkeys(split_name(name)[0] for it in iterations for name in it.metrics)
    return [
        name
        for name in names
        if name not in METRICS and without_guard(name) == name and not is_sampled_metric(name)
    ]


def _threshold(name: str, condition: str, loops: Mapping[str, Mapping[str, str]]) -> Gate:
    """The gate that `--gate` states, on a metric that some loop has."""
    from pytest_ftloop.config.gates import parse_gate
    from pytest_ftloop.core.errors import did_you_mean
    from pytest_ftloop.core.metrics import METRICS, split_name

    of_the_set = {metric: kind for own in loops.values() for metric, kind in own.items()}
    metric = split_name(name)[0]
    has = "; ".join(f"{loop} has {', '.join(own)}" for loop, own in loops.items() if own)
    try:
        return parse_gate(name, condition, of_the_set=of_the_set)
    except ConfigError as error:
        if not has or "unknown metric" not in error.message:
            raise
        raise ConfigError(
            f"--gate: {error.message}; no loop has it: besides {', '.join(METRICS)}, {has}",
            cure=did_you_mean(metric, {*METRICS, *of_the_set}),
        ) from None


def _own_to_loops(gate: Gate, loops: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a threshold is on a metric that some loops have of their own."""
    from pytest_ftloop.core.metrics import METRICS

    return gate.metric not in METRICS and any(gate.metric in own for own in loops.values())


def _stated(arguments: argparse.Namespace, found: Candidates) -> Stated:
    from pytest_ftloop.config.gates import checked_option

    loops = _loops_metrics(found) if arguments.gate else {}
    stated: dict[str, Gate] = {}
    for text in arguments.gate:
        match = re.fullmatch(r"\s*(.*?)\s*([<>]=?[^<>]*)", text, re.DOTALL)
        if match is None or not match[1]:
            raise ConfigError(
                f'--gate: wanted a metric and a condition, such as "eval_loss <= 0.3", found '
                f"{text!r}"
            )
        stated[match[1]] = _threshold(match[1], match[2], loops)
    options: dict[str, Any] = {}
    for name in ("alpha", "max_regression"):
        if (value := getattr(arguments, name)) is not None:
            options[name] = checked_option(name, value)
    thresholds = tuple(stated.values())
    own = tuple(gate for gate in thresholds if _own_to_loops(gate, loops))
    return Stated(thresholds, options, own)


def parse_fail_on(stated: str | None) -> frozenset[str]:
    """The verdicts that `--fail-on` lists; none if it was not given."""
    if stated is None:
        return frozenset()
    from pytest_ftloop.core.errors import did_you_mean

    kinds = [word.strip() for word in stated.split(",") if word.strip()]
    for kind in kinds:
        if kind not in FAIL_ON:
            raise ConfigError(
                f"--fail-on: unknown verdict {kind!r}", cure=did_you_mean(kind, FAIL_ON)
            )
    return frozenset(kind.replace("-", " ") for kind in kinds)


COMMAND = Command(
    "gate",
    "judge the log against a commit",
    "Judge the improvement log by the loop's gates and against the last committed version (by\n"
    "the default regression gate, if the loop has none). Trains nothing, needs no torch.\n"
    "Exit code: 0 all gates hold, 1 a gate failed, the model regressed, or nothing judges a log\n"
    "of the base any more, 2 an error in usage or config, 3 the log is out of date, incomplete or\n"
    "damaged.",
    (
        "ftloop gate",
        "ftloop gate main..HEAD",
        "ftloop gate --fail-on inconclusive examples",
        'ftloop gate --gate "pass_rate >= 0.95" --report-only',
    ),
    _arguments,
    _run,
)
