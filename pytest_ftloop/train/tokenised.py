"""TORCH: an SFTTrainer that prepares rows once a loop, not once a run.

What trl makes of rows depends on these, the tokenizer and some of the settings. Iterations of a
loop differ in others: for them the rows are tokenised already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
from trl import SFTConfig, SFTTrainer

_OF_TRAINING = frozenset(
    {
        *("output_dir", "run_name", "project", "report_to", "seed", "data_seed"),
        *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
        *("num_train_epochs", "max_steps", "weight_decay", "max_grad_norm", "optim"),
        *("per_device_train_batch_size", "per_device_eval_batch_size"),
        *("gradient_accumulation_steps", "label_smoothing_factor", "neftune_noise_alpha"),
    }
)
"""Settings that differ between runs and have no part in preparing rows. All others count."""


@dataclass
class Tokenised:
    """The rows that trl has prepared with one choice of settings: the last one that was asked for.

    Each set of rows is found by its content, whatever its role.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    sets: dict[tuple[str, bool], datasets.Dataset] = field(default_factory=dict)

    def of(self, settings: Mapping[str, Any]) -> dict[tuple[str, bool], datasets.Dataset]:
        """What was prepared with these settings, by fingerprint and whether it is packed."""
        if settings != self.settings:
            self.settings, self.sets = settings, {}
        return self.sets


class TokenisingOnce(SFTTrainer):  # type: ignore[misc] # trl has no types
    """The SFTTrainer of a plain script, with rows that an earlier one may have prepared."""

    def __init__(self, *, tokenised: Tokenised, **arguments: Any) -> None:
        self._tokenised = tokenised  # first: rows are prepared within the call
        super().__init__(**arguments)

    def _prepare_dataset(
        self,
        dataset: datasets.Dataset,
        processing_class: Any,
        args: SFTConfig,
        packing: bool,
        *others: Any,
        **named: Any,
    ) -> datasets.Dataset:
        if hasattr(self, "args"):  # it is made: this asks for a few rows, with settings of its own
            return super()._prepare_dataset(
                dataset, processing_class, args, packing, *others, **named
            )
        stated = {k: v for k, v in args.to_dict().items() if k not in _OF_TRAINING}
        known = self._tokenised.of(stated)
        key = (dataset._fingerprint, packing)
        if key not in known:
            known[key] = super()._prepare_dataset(dataset, processing_class, args, packing, *others)
        return known[key]
