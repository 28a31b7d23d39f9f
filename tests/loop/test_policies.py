"""The policies beside the rules: a list, a function or hook, an Optuna sampler."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.adjust import Known, Limits, decide
from pytest_ftloop.adjust.choose import policy_of
from pytest_ftloop.adjust.function import Function, Listed
from pytest_ftloop.adjust.sampler import Dimension, Sampler
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.records import Adjustment
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import FakeBackend
from tests.fakes import fake_finding, fake_iteration, fake_metrics
from tests.loop.loop_cases import config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_ftloop.loop.result import LoopResult

RATE = "training.learning_rate"
EPOCHS = "num_train_epochs"
LIMITS = Limits(iterations=10, patience=2)


def iteration(number: int = 1, loss: float = 1.0, rate: float = 1e-3, *kinds: str) -> Any:
    return fake_iteration(
        number,
        metrics=fake_metrics(loss),
        findings=[fake_finding(kind, "error") for kind in kinds],
        lora={"r": 8},
        training={"learning_rate": rate},
    )


def rates(result: LoopResult) -> list[float]:
    return [i.settings.get(RATE) for i in result.chain]


def run(folder: Path, policy: Any, options: Options | None = None, **changes: Any) -> LoopResult:
    loop = {"patience": 1, **changes, "policy": policy}
    return Loop(config(folder, loop=loop), options or Options(), backend=FakeBackend()).run()


class TestListed:
    def test_in_order_and_to_the_end(self, tmp_path: Path) -> None:
        """All entries are trained in their order, each a change of the loop file's settings."""
        entries = [{RATE: 1e-3, "lora.r": 4}, {RATE: 5e-4}, {RATE: 4e-4}]
        result = run(tmp_path, entries)
        assert [2e-4, 1e-3, 5e-4, 4e-4] == rates(result)
        assert [8, 4, 8, 8] == [i.settings.get("lora.r") for i in result.chain]
        assert ("stop", "iterations") == (
            result.chain[-1].decision.action,
            result.chain[-1].decision.kind,
        )

    def test_stated_iterations_bound_it(self, tmp_path: Path) -> None:
        """A stated number of iterations holds for a list too."""
        result = run(tmp_path, [{RATE: 1e-3}, {RATE: 5e-4}], iterations=2)
        assert [2e-4, 1e-3] == rates(result)

    def test_through(self, tmp_path: Path) -> None:
        """With iterations left the loop ends when the list is through, and says so."""
        last = run(tmp_path, [{RATE: 1e-3}], iterations=5).chain[-1]
        assert ("exhausted", "All settings in the loop file's list were tried.") == (
            last.decision.kind,
            last.decision.because,
        )

    def test_a_longer_list_goes_on(self, tmp_path: Path) -> None:
        """What is added to a list that was gone through is trained, and nothing else again."""
        run(tmp_path, [{RATE: 1e-3}])
        result = run(tmp_path, [{RATE: 1e-3}, {RATE: 5e-4}])
        assert ([2e-4, 1e-3, 5e-4], 1) == (rates(result), len(result.trained))
        assert 0 == len(run(tmp_path, [{RATE: 1e-3}, {RATE: 5e-4}]).trained)

    def test_a_list_after_the_rules(self, tmp_path: Path) -> None:
        """A list that takes the place of the rules is gone through, whatever they tried."""
        run(tmp_path, "rules", iterations=2)
        result = run(tmp_path, [{"lora.r": 4}, {"lora.r": 2}, {"lora.r": 1}])
        assert [4, 2, 1] == [i.settings.get("lora.r") for i in result.chain[2:]]

    def test_more_patience(self, tmp_path: Path) -> None:
        """A plateau is looked at again where the loop file has more patience now."""
        more = {"gates": {"eval_loss": "<= 0.1"}}
        loops = [{"iterations": 9, "patience": n} for n in (1, 1, 3)]
        kinds, counts = [], []
        for loop in loops:
            given = config(tmp_path, rate=1.6e-3, loop=loop, **more)
            result = Loop(given, Options(), backend=FakeBackend()).run()
            kinds.append(result.chain[-1].decision.kind)
            counts.append(len(result.trained))
        assert ["plateau"] * 2 == kinds[:2]
        assert 0 == counts[1]
        assert 1 <= counts[2]

    def test_gates_do_not_end_it(self) -> None:
        """Gates that hold and a plateau leave a list as it is: it is gone through."""
        chain = [iteration(1, 1.0), iteration(2, 1.0, 2e-3), iteration(3, 1.0, 3e-3)]
        decision = decide(chain, True, replace(LIMITS, patience=1), Listed(({RATE: 5e-3},)))
        assert ("adjust", 5e-3) == (decision.action, decision.next[0].after)

    def test_same_settings_twice(self) -> None:
        """An entry that was tried already, in the list or as the start, is not trained again."""
        chain = [iteration(1), iteration(2, 1.0, 2e-3)]
        policy = Listed(({RATE: 1e-3}, {RATE: 2e-3}, {RATE: 3e-3}))
        assert 3e-3 == policy.propose(chain, "eval_loss").adjustments[0].after

    def test_parent_is_the_first(self, tmp_path: Path) -> None:
        """The log says what the changes are relative to, and a second run finds it up to date."""
        entries = [{RATE: 1.6e-3}, {"lora.r": 4}]
        first = run(tmp_path, entries)
        assert [None, first.chain[0].id, first.chain[0].id] == [i.parent for i in first.chain]
        assert first.chain[0].id == first.chain[1].decision.parent
        again = run(tmp_path, entries)
        assert ((), rates(first)) == (again.trained, rates(again))

    def test_replay_of_another_policy(self, tmp_path: Path) -> None:
        """What a list decided stands in the log: a loop by rules takes it as it is."""
        run(tmp_path, [{RATE: 1.6e-3}, {"lora.r": 4}], iterations=3)
        result = run(tmp_path, "rules", Options(replay=True), iterations=3)
        assert [2e-4, 1.6e-3, 2e-4] == rates(result)


class TestFunction:
    def test_function(self, tmp_path: Path) -> None:
        """A function's settings are relative to the best iteration, until it returns nothing."""
        (tmp_path / "my_policy_a.py").write_text(
            "def next_settings(chain):\n"
            "    rate = chain[-1].settings.get('training.learning_rate')\n"
            "    return {'training.learning_rate': 2 * rate} if len(chain) < 3 else {}\n"
        )
        result = run(tmp_path, "my_policy_a:next_settings", iterations=9, patience=9)
        assert [2e-4, 4e-4, 8e-4] == rates(result)
        last = result.chain[-1].decision
        assert ("exhausted", "my_policy_a:next_settings has no more settings to try.") == (
            last.kind,
            last.because,
        )

    def test_none_is_left_to_the_next(self) -> None:
        """A hook that returns None leaves the word to the loop's own policy."""
        policy = Function("hook", lambda _: None, otherwise=Listed(({RATE: 7e-3},)))
        assert 7e-3 == policy.propose([iteration()], "eval_loss").adjustments[0].after

    @pytest.mark.parametrize(
        ("returned", "said"),
        [
            (3, "wanted a mapping of settings, found int"),
            ({"learning_rate": 1}, "wanted names such as training.learning_rate"),
            ({RATE: math.nan}, "wanted numbers, text, lists or dicts"),
            ({RATE: object()}, "wanted numbers, text, lists or dicts"),
        ],
    )
    def test_nonsense(self, returned: object, said: str) -> None:
        """What is no mapping of settings to plain values is refused, with what was found."""
        policy = Function("mine:next", lambda _: returned)
        with pytest.raises(ConfigError, match=said):
            policy.propose([iteration()], "eval_loss")

    def test_raising(self) -> None:
        """A function that raises is an error of the user's, with its place."""

        def broken(chain: Sequence[object]) -> Mapping[str, object]:
            raise KeyError("x")

        with pytest.raises(ConfigError, match=r"raised KeyError: 'x' after iteration .*\n?.*"):
            Function("mine:next", broken).propose([iteration()], "eval_loss")

    def test_an_exit_is_a_mistake_too(self) -> None:
        """A function that ends the program is told like one that raises."""

        def ends(chain: Sequence[object]) -> Mapping[str, object]:
            raise SystemExit(3)

        with pytest.raises(ConfigError, match="raised SystemExit: 3"):
            Function("mine:next", ends).propose([iteration()], "eval_loss")

    @pytest.mark.parametrize("number", [1, 2])
    def test_settings_again(self, number: int) -> None:
        """Settings that the chain has are told as such, also the parent's own."""
        chain = [iteration(1, 1.0, 1e-3), iteration(2, 0.5, 2e-3)]
        policy = Function("mine:next", lambda _: {RATE: number * 1e-3})
        proposal = policy.propose(chain, "eval_loss")
        because = f"mine:next returned the settings of iteration {number} again."
        assert ((), because) == (proposal.adjustments, proposal.because)

    def test_the_log_is_out_of_reach(self, tmp_path: Path) -> None:
        """What a user's code does to the records it gets does not reach the log."""

        def falsifies(chain: Any) -> dict[str, float]:
            chain[0].settings.lora["r"] = 99
            return {RATE: 4e-4} if len(chain) == 1 else {}

        given = config(tmp_path, loop={"iterations": 3})
        loop = Loop(given, backend=FakeBackend(), adjust_hook=falsifies)
        assert [8, 8] == [i.settings.get("lora.r") for i in loop.run().chain]
        assert [8, 8] == [i.settings.get("lora.r") for i in loop.log.read()]

    def test_mistake_before_training(self, tmp_path: Path) -> None:
        """A function that is not there is an error before anything is trained."""
        runner = FakeBackend()
        loop = Loop(config(tmp_path, loop={"policy": "my_policy_b:no"}), backend=runner)
        with pytest.raises(ConfigError, match="there is no module 'my_policy_b'"):
            loop.run()
        assert [] == runner.runs


class Refusing(FakeBackend):
    """Trains, but no rank of 13: as peft refuses what only a model shows to be wrong."""

    def train(self, settings: Any, **given: Any) -> Any:
        if settings.get("lora.r") == 13:
            raise ConfigError("peft refuses r 13", cure="Mend it.")
        return super().train(settings, **given)


class TestWhatCanNotBeTrained:
    def test_the_decision_is_undone(self, tmp_path: Path) -> None:
        """Settings that are refused are told with the policy's place, and mended they train."""
        bad, good = ({"policy": [{"lora.r": r}]} for r in (13, 4))
        with pytest.raises(ConfigError, match=r"\(lora.r 13\) can't be trained: peft refuses r 13"):
            Loop(config(tmp_path, loop=bad), backend=Refusing()).run()
        trainer = Refusing()
        result = Loop(config(tmp_path, loop=good), backend=trainer).run()
        assert ([8, 4], 1) == ([i.settings.get("lora.r") for i in result.chain], len(trainer.runs))

    def test_the_start(self, tmp_path: Path) -> None:
        """A loop file whose own settings are refused says just that."""
        given = config(tmp_path, lora={"r": 13})
        with pytest.raises(ConfigError, match=r"^peft refuses r 13"):
            Loop(given, backend=Refusing()).run()

    def test_a_failing_diagnosis_of_the_user_loses_nothing(self, tmp_path: Path) -> None:
        """The iteration of a hook that fails is logged, and decided by the next run."""

        def broken(evidence: object) -> tuple[()]:
            raise RuntimeError("my own mistake")

        given = config(tmp_path, loop={"iterations": 1})
        with pytest.raises(RuntimeError, match="my own mistake"):
            Loop(given, backend=FakeBackend(), diagnose_hook=broken).run()
        trainer = FakeBackend()
        result = Loop(given, backend=trainer).run()
        assert (1, 0, "pending") == (
            len(result.chain),
            len(trainer.runs),
            result.chain[0].decision.kind,
        )


SPACE = {RATE: Dimension(1e-4, 1e-2, log=True)}


class TestSampler:
    def sampler(self, name: str = "TPESampler", **more: Any) -> Sampler:
        pytest.importorskip("cmaes" if name == "CmaEsSampler" else "optuna")
        return Sampler(name, {**SPACE, **more.pop("space", {})}, **more)

    @pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "CmaEsSampler"])
    def test_within_the_space(self, name: str) -> None:
        """Suggestions lie within the space, are new, and are the same for the same log."""
        chain = [iteration()]
        for number in range(2, 8):
            policies = [self.sampler(name), self.sampler(name)]
            made, again = (p.propose(chain, "eval_loss").adjustments for p in policies)
            assert made == again
            assert 1e-4 <= made[0].after <= 1e-2
            chain.append(iteration(number, 1 / number, made[0].after))
        assert len(chain) == len({i.settings.get(RATE) for i in chain})

    def test_history_is_told(self) -> None:
        """A sampler that models the history searches where it was good."""
        tried = [1e-4 * 10 ** (n / 10) for n in range(21)]
        good = [iteration(n, abs(math.log(rate / 1e-3)), rate) for n, rate in enumerate(tried, 1)]
        policy = self.sampler(options={"n_startup_trials": 1})
        found = [
            replace(policy, seed=seed).propose(good, "eval_loss").adjustments[0].after
            for seed in range(20)
        ]
        assert 12 <= sum(3e-4 < rate < 3e-3 for rate in found)

    def test_what_diverged_is_pruned(self) -> None:
        """Nothing at or above a learning rate that diverged is suggested, here or in the log."""
        chain = [iteration(1, 5.0, 2e-4)]
        known = Known((iteration(7, 9.0, 5e-4, "diverged"),))
        policy = self.sampler("RandomSampler")
        found = [
            replace(policy, seed=seed).propose(chain, "eval_loss", known).adjustments[0].after
            for seed in range(30)
        ]
        assert max(found) < 5e-4

    def test_nan(self) -> None:
        """An iteration without a finite figure is told as the worst there is."""
        chain = [iteration(1, math.nan), iteration(2, 2.0, 2e-3)]
        assert self.sampler().propose(chain, "eval_loss").adjustments
        assert self.sampler().propose(chain[:1], "eval_loss").adjustments

    def test_choices_and_whole_numbers(self) -> None:
        """Whole bounds give whole numbers, choices one of them."""
        space = {"lora.r": Dimension(2, 64, log=True), "training.optim": Dimension(choices=("a",))}
        made = self.sampler(space=space).propose([iteration()], "eval_loss").adjustments
        values = {a.setting: a.after for a in made}
        assert (int, "a") == (type(values.get("lora.r", 8)), values["training.optim"])

    def test_exhausted(self) -> None:
        """A space with nothing new ends the loop instead of training a setting twice."""
        space = {RATE: Dimension(choices=(1e-3,))}
        policy = self.sampler(space=space)
        assert "no suggestion that is new" in policy.propose([iteration()], "eval_loss").because

    def test_mistakes(self) -> None:
        """An unknown sampler or option is refused at once, with the nearest name."""
        with pytest.raises(ConfigError, match="TPESampler"):
            self.sampler("TPESampeler")
        with pytest.raises(ConfigError, match=r"optuna's TPESampler failed: .*no_such"):
            self.sampler(options={"no_such": 1})

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("TPESampler", {"n_startup_trials": "abc"}, "TPESampler failed"),
            ("GridSampler", {"search_space": {"x": [1]}}, "not found in the given grid"),
            ("BaseSampler", {}, "abstract"),
        ],
    )
    def test_mistakes_of_first_use(self, name: str, options: dict[str, Any], said: str) -> None:
        """What a sampler refuses only when it is asked is refused before anything is trained."""
        with pytest.raises(ConfigError, match=said):
            self.sampler(name, options=options)

    def test_a_sampler_whose_library_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sampler that needs another library names it."""
        pytest.importorskip("optuna")
        monkeypatch.setitem(sys.modules, "cmaes", None)
        with pytest.raises(ConfigError, match="CmaEsSampler needs cmaes"):
            Sampler("CmaEsSampler", {**SPACE, "lora.lora_dropout": Dimension(0.0, 0.5)})

    @pytest.mark.filterwarnings("error")
    def test_experimental_samplers(self) -> None:
        """A sampler that optuna calls experimental is used without a warning at each question."""
        assert self.sampler("QMCSampler").propose([iteration()], "eval_loss").adjustments

    def test_a_grid(self) -> None:
        """A grid is gone through, and then the loop ends."""
        grid = {"search_space": {RATE: [2e-4, 1e-3, 5e-3]}}
        chain = [iteration()]
        while made := self.sampler("GridSampler", options=grid).propose(chain, "eval_loss"):
            if not made.adjustments:
                break
            chain.append(iteration(len(chain) + 1, 1.0, made.adjustments[0].after))
        assert {1e-3, 2e-4, 5e-3} == {i.settings.get(RATE) for i in chain}
        assert "no suggestion that is new" in made.because

    def test_a_start_that_is_no_whole_number(self) -> None:
        """A start outside of a space of whole numbers is not told to the sampler."""
        space = {"training.num_train_epochs": Dimension(1, 20)}
        first = iteration()
        half = replace(first.settings, training={**first.settings.training, EPOCHS: 1.5})
        made = self.sampler(space=space).propose([replace(first, settings=half)], "eval_loss")
        assert made.adjustments

    @pytest.mark.parametrize(("low", "high"), [(1.2345e-3, 1.2349e-3), (0.1234, 0.1239)])
    def test_written_values_stay_in_the_range(self, low: float, high: float) -> None:
        """Rounding to three digits does not leave a narrow range."""
        space = {RATE: Dimension(low, high)}
        found = [
            replace(self.sampler(space=space), seed=seed)
            .propose([iteration()], "eval_loss")
            .adjustments[0]
            .after
            for seed in range(5)
        ]
        assert all(low <= rate <= high for rate in found)

    def test_whole_loop(self, tmp_path: Path) -> None:
        """A loop by a sampler trains as many iterations as it may, and a replay finds them."""
        pytest.importorskip("optuna")
        policy = {"sampler": "RandomSampler", "space": {RATE: {"low": 1e-4, "high": 1e-2}}}
        result = run(tmp_path, policy, iterations=4)
        assert (4, "suggested by RandomSampler") == (
            len(result.chain),
            result.chain[1].adjustments[0].because,
        )
        assert rates(result) == rates(run(tmp_path, policy, Options(replay=True), iterations=4))


BASE = "data: {train: t.jsonl, eval: e.jsonl}\nloop:\n"


def read(folder: Path, text: str) -> Any:
    file = folder / "x.ftloop.yaml"
    file.write_text(BASE + text)
    return read_loop_file(file)


class TestLoopFile:
    def test_policies(self, tmp_path: Path) -> None:
        """Rules by default; a list, and a sampler's space, are read from the loop file."""
        assert "Rules" == type(policy_of(read(tmp_path, "  patience: 2\n"))).__name__
        listed = policy_of(read(tmp_path, f"  policy:\n    - {{{RATE}: 1.0e-3}}\n"))
        assert Listed(({RATE: 1e-3},)) == listed

    def test_hook_comes_first(self, tmp_path: Path) -> None:
        """A pytest hook is asked before the policy of the loop file."""
        loop = read(tmp_path, f"  policy:\n    - {{{RATE}: 1.0e-3}}\n")
        policy = policy_of(loop, hook=lambda _: {"lora.r": 2})
        made = policy.propose([iteration()], "eval_loss").adjustments
        assert (Adjustment("lora.r", 8, 2, "returned by pytest_ftloop_adjust"),) == made

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("  policy: ruels\n", "x.ftloop.yaml:3: .*found 'ruels'"),
            ("  policy: []\n", "found an empty one"),
            ("  policy:\n    - {learning_rate: 1.0e-3}\n", "found 'learning_rate'"),
            ("  policy: {sampler: TPESampler}\n", "loop.policy.space is missing"),
            ("  policy: {sampler: T, space: {lora.r: {low: 4, high: 4}}}\n", "a higher high"),
            ("  policy: {sampler: T, space: {lora.r: {low: 0, high: 4, log: true}}}\n", "above 0"),
            (
                "  policy: {sampler: T, space: {lora.r: {choices: []}}}\n",
                "at least one value in choices",
            ),
            ("  policy: {sampler: T, space: {r: {low: 1, high: 4}}}\n", "found 'r'"),
            ("  policy: {sampler: T, spaces: {}}\n", "unknown key 'spaces' in loop.policy"),
            ("  policy: 3\n", "loop.policy: wanted"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, said: str) -> None:
        """A policy that is none is refused with its line, what was wanted and what was found."""
        with pytest.raises(ConfigError, match=said):
            read(tmp_path, text)
