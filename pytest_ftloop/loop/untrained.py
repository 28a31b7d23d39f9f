"""Keep the measurement of the untrained base, and make it where it is missing and needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import Lift
from pytest_ftloop.core.metrics import eval_metrics
from pytest_ftloop.core.records import BaseMeasured, Iteration, Settings, Untrained
from pytest_ftloop.core.runs import decisive
from pytest_ftloop.core.untrained import base_of, tokenising
from pytest_ftloop.loop.inputs import model_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.log.kept import Store
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.inputs import Inputs


def needs_base(config: LoopConfig) -> bool:
    """Whether a gate compares with the untrained base."""
    compares = any("base" in rule.against for rule in config.forgetting)
    return compares or any(isinstance(gate, Lift) for gate in config.gates)


@dataclass(frozen=True)
class BaseKeeper:
    """Finds, keeps and makes the measurements of a loop's untrained base.

    `store` has those of earlier runs, if any are kept.
    """

    config: LoopConfig
    inputs: Inputs
    log: ImprovementLog
    backend: Backend
    store: Store

    def known(self, settings: Settings) -> Untrained | None:
        """The base as a training with these settings would measure it here, if it was measured.

        What the log lacks and the store has is written into the log.
        """
        found = self.seen(settings)
        if found is None or self.measured_in(found.environment, settings) is not None:
            return found
        return self.log.append_base(found)

    def seen(self, settings: Settings) -> Untrained | None:
        """The same, where nothing may be written."""
        fingerprint = self.inputs.base_fingerprint(settings)
        if not self._measured(settings) and not self.store.may_have(fingerprint):
            return None  # asking for the environment takes seconds
        found = self.measured_in(self.backend.environment(settings), settings)
        return found or self.store.base(fingerprint, settings, self.config.name)

    def measured_in(self, environment: Mapping[str, str], settings: Settings) -> Untrained | None:
        """The base as measured in an environment, if the log has that."""
        here, found = decisive(environment), self._measured(settings)
        return next((base for base in found if decisive(base.environment) == here), None)

    def _measured(self, settings: Settings) -> list[Untrained]:
        fingerprint = self.inputs.base_fingerprint(settings)
        return [base for base in self.log.view.bases() if base.fingerprint == fingerprint]

    def keep(self, settings: Settings, measured: BaseMeasured) -> Untrained:
        """Write a measurement of the base into the log."""
        inputs, results = self.inputs, measured.results
        facts = dict(model_facts(self.config, inputs))
        if stated := tokenising(settings.training):
            facts["training"] = stated
        base = self.log.append_base(
            Untrained(
                loop=self.config.name,
                fingerprint=inputs.base_fingerprint(settings),
                model=inputs.model,
                scoring=inputs.scoring,
                data=inputs.measured_data,
                metrics=eval_metrics(results.examples, results.guards, inputs.set_metrics),
                facts=facts,
                environment=measured.environment,
                examples=results.examples,
                guards=results.guards,
            )
        )
        self.store.keep(base, self.log)
        return base

    def measure_missing(self, best: Iteration, progress: Progress) -> None:
        """Measure the base by itself, where the log lacks it and the best is of this environment.

        In another environment it can't be compared with the best: the gate then says so.
        """
        if base_of(self.log.view.bases(), best) is not None:
            return
        if decisive(self.backend.environment(best.settings)) != decisive(best.environment):
            return
        if self.known(best.settings) is not None:
            return
        progress.working(f"{self.config.name}: measuring the untrained base")
        try:
            self.keep(best.settings, self.backend.measure_base(best.settings))
        finally:
            progress.done()
