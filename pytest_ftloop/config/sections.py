"""The sections and keys of a loop file, as pydantic models."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from pytest_ftloop.config.gates import LARGEST_DROP, LEAST_ALPHA, LIFTED, MOST_ALPHA
from pytest_ftloop.config.judge import CONCURRENCY
from pytest_ftloop.config.run_on import checked_engine
from pytest_ftloop.core.metrics import is_score
from pytest_ftloop.core.records import GUARD_NAME

DEFAULT_LORA: Mapping[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
"""The `lora` section of a loop without one. A loop with one gets peft's defaults for the rest."""

DEFAULT_TRAINING: Mapping[str, Any] = {"learning_rate": 2e-4, "num_train_epochs": 1}
"""The `training` section of a loop without one: LoRA learns little at trl's default rate, 2e-5."""

SETTING_GROUPS = ("lora.", "training.")
"""The dotted name of a setting begins with one of these."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Fraction = Annotated[float, Field(gt=0, lt=1)]


class HubSource(_Section):
    """A data set on the hub, or a local folder in its layout."""

    hub: str = Field(description="owner/name, or a folder")
    split: str | None = Field(None, description="the split; by default the one of the role")
    name: str | None = Field(None, description="the configuration, if there are several")
    revision: str | None = Field(None, description="a commit, so that the data can't change")


def _kind_of_source(stated: object) -> str | None:
    """The form in which a source is stated: mistakes are reported for that form only."""
    if isinstance(stated, PartSection | GuardSection) or (
        isinstance(stated, Mapping) and "source" in stated
    ):
        return "<part>"
    if isinstance(stated, list):
        return "<list>"
    if isinstance(stated, Mapping | HubSource):
        return "<hub>"
    return "<text>" if isinstance(stated, str) else None


_Text = Annotated[str, Tag("<text>")]
_Hub = Annotated[HubSource, Tag("<hub>")]


class PartSection(_Section):
    """One source of a mixture."""

    source: Annotated[_Text | _Hub, Discriminator(_kind_of_source)] = Field(
        description="as for train"
    )
    weight: float = Field(
        1.0,
        gt=0,
        description="number of times that each row is taken per epoch; 0.5 takes half of the rows",
    )


_Part = Annotated[
    _Text | _Hub | Annotated[PartSection, Tag("<part>")], Discriminator(_kind_of_source)
]


class SplitSection(_Section):
    """An eval set split off the train set."""

    fraction: Fraction = Field(description="share of the train rows, between 0 and 1")
    seed: int = Field(0, description="selects the rows; the same seed selects the same rows")


_Guarded = Annotated[
    _Text | _Hub | Annotated["GuardSection", Tag("<part>")], Discriminator(_kind_of_source)
]


class DataSection(_Section):
    """Where the examples come from."""

    train: Annotated[
        _Text | _Hub | Annotated[list[_Part], Tag("<list>")], Discriminator(_kind_of_source)
    ] = Field(
        description="jsonl, json, csv or parquet file, a hub id, or module:function; or a list of "
        "them, each with a weight if it is not 1"
    )
    eval: str | HubSource | None = Field(None, description="as for train; or use split")
    split: SplitSection | None = Field(None, description="split an eval set off the train set")
    holdout: str | HubSource | None = Field(
        None,
        description="examples kept out of every decision; measured once an iteration is accepted",
    )
    guards: dict[str, _Guarded] = Field(
        default_factory=dict,
        description="rows of other tasks that must not get worse: a source by name, as for eval, "
        "or source and scoring",
    )
    id: str | None = Field(
        None,
        description="column of the example ids; by default id, or a hash of the content without "
        "such a column",
    )
    tags: str | list[str] = Field("tags", description="column or columns of tags")
    answers: str | None = Field(
        None,
        min_length=1,
        description="column of the acceptable answers besides the expected text: a list of texts",
    )
    keep: str | list[str] = Field(
        default_factory=list,
        description="columns that scorers read besides those that trl reads",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the chat template for every row, such as {enable_thinking: "
        "false}; a row's own come first",
    )
    tools: list[dict[str, Any]] | None = Field(
        None, description="tools that every row without its own gives to the chat template"
    )
    train_sample: int = Field(
        256, ge=1, description="number of train examples measured in eval mode for train_loss"
    )

    @model_validator(mode="after")
    def _one_eval_set(self) -> DataSection:
        if self.eval is None and self.split is None:
            raise ValueError(
                "no eval set: add eval, or split one off with split: {fraction: 0.1, seed: 0}"
            )
        if self.eval is not None and self.split is not None:
            raise ValueError("found both eval and split: name an eval set, or split one off")
        for name in self.guards:
            if not re.fullmatch(GUARD_NAME, name):
                raise ValueError(
                    f"data.guards: wanted a name of letters, digits, '-' and '_', found {name!r}"
                )
        if self.train == []:
            raise ValueError("data.train is an empty list: name a file")
        if self.split is not None and isinstance(self.train, list):
            raise ValueError("split takes one source, found a list in train: name an eval set")
        return self


SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "extra_special_tokens",
)
"""The keys of transformers' `add_special_tokens`. Its older name for the last one works too."""


class TokenizerSection(_Section):
    """A tokenizer other than the base model's own, or tokens that are added to it."""

    name: str | None = Field(
        None, min_length=1, description="load it from this folder or hub id (id@revision)"
    )
    add_special_tokens: list[str] | dict[str, Any] | None = Field(
        None,
        description="tokens to add, as a list, or by role as for transformers' "
        "add_special_tokens: {pad_token: <|pad|>}; the model's embeddings are resized",
    )

    @field_validator("add_special_tokens")
    @classmethod
    def _tokens(cls, stated: Any) -> Any:
        for role, tokens in stated.items() if isinstance(stated, dict) else [("", stated)]:
            key = f"tokenizer.add_special_tokens{f'.{role}' if role else ''}"
            if role not in ("", "additional_special_tokens", *SPECIAL_TOKENS):
                raise ValueError(f"{key}: wanted one of {', '.join(SPECIAL_TOKENS)}")
            plural = not role.endswith("_token")
            listed = tokens if plural else [tokens]
            if tokens is not None and not (
                isinstance(listed, list) and all(isinstance(t, str) and t for t in listed)
            ):
                wanted = "a list of tokens" if plural else "a token"
                raise ValueError(f"{key}: wanted {wanted}, found {tokens!r}")
        return stated

    @property
    def tokens(self) -> dict[str, Any]:
        """The tokens to add, as `add_special_tokens` takes them."""
        stated = self.add_special_tokens or {}
        return dict(stated) if isinstance(stated, dict) else {"extra_special_tokens": stated}


_Share = Annotated[float, Field(ge=0, le=1)]


class JudgeSection(_Section):
    """A model at an OpenAI-compatible endpoint that grades outputs."""

    url: str = Field(description="the endpoint's base URL, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="the model's name there")
    rubric: str = Field(min_length=1, description="what makes an output good, in your words")
    scale: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        [1.0, 5.0], description="the lowest and the highest grade; the scores 0 and 1"
    )
    request: dict[str, Any] = Field(
        default_factory=dict, description="further fields of each request, such as {seed: 1}"
    )
    api_key_env: str | None = Field(
        None, description="the environment variable with the key; by default FTLOOP_API_KEY, if set"
    )
    timeout_s: float = Field(60.0, gt=0, description="time for one answer")
    concurrency: int = Field(CONCURRENCY, ge=1, le=64, description="requests at a time")

    @model_validator(mode="after")
    def _rising_scale(self) -> JudgeSection:
        low, high = self.scale
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"wanted a low grade and a higher one, found {self.scale}")
        return self


class ScoringSection(_Section):
    """How an example passes."""

    scorer: str = Field(
        "exact",
        description="loss, exact, contains, regex, choice, json, number, f1, rouge, tool_call, "
        "judge, hook, or module:function; with the section judge it is judge",
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="maximum length of an output, in tokens"
    )
    threshold: float | None = Field(
        None, description="for loss: the highest loss per token that passes"
    )
    pattern: str | None = Field(
        None, description="for regex; by default the expected text is the pattern"
    )
    choices: list[str] | None = Field(
        None, description="for choice: the candidates; by default the train set's expected texts"
    )
    ignore_case: bool = Field(False, description="for exact, contains and regex")
    judge: JudgeSection | None = Field(None, description="for judge: the model that grades")
    judge_check: str | None = Field(
        None, description="rows with human grades, as for train: the judge's agreement is reported"
    )
    samples: int = Field(1, ge=1, le=1000, description="number of outputs per example")
    temperature: float | None = Field(
        None, gt=0, description="sample with it; by default greedy, or 1.0 for several samples"
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="sample from the likeliest tokens of this share only"
    )
    seed: int = Field(0, ge=0, description="of the sampling; the training's seed is another")
    generation: dict[str, Any] = Field(
        default_factory=dict, description="further fields of transformers' GenerationConfig"
    )
    pass_at: (
        Annotated[
            Annotated[_Share, Tag("<number>")]
            | Annotated[dict[str, _Share], Field(min_length=1), Tag("<by name>")],
            Discriminator(
                lambda stated: "<by name>" if isinstance(stated, Mapping) else "<number>"
            ),
        ]
        | None
    ) = Field(
        None,
        description="an example passes where its score, or each of its scores, is at least this "
        "(default 1.0); or by the score's name",
    )
    tolerance: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[float, Field(ge=0), Tag("<number>")],
            Discriminator(lambda stated: "<text>" if isinstance(stated, str) else "<number>"),
        ]
        | None
    ) = Field(None, description="for number: the largest difference that passes, or a percentage")
    rouge: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] | None = Field(
        None, description="for rouge: its kind (default rougeL)"
    )


class GuardSection(_Section):
    """Rows of another task, with a scoring of their own."""

    source: Annotated[_Text | _Hub, Discriminator(_kind_of_source)] = Field(
        description="as for eval"
    )
    scoring: ScoringSection | None = Field(
        None, description="how a row passes; by default as an eval example, or by no scorer"
    )


class SpaceSection(_Section):
    """A setting's range for a sampler: low and high, or choices."""

    low: int | float | None = Field(None, description="the lowest value")
    high: int | float | None = Field(None, description="the highest value")
    log: bool = Field(False, description="search it on a logarithmic scale")
    choices: list[Any] | None = Field(None, description="the values to choose from")

    @model_validator(mode="after")
    def _range_or_choices(self) -> SpaceSection:
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log:
                raise ValueError("wanted low and high (and log), or at least one value in choices")
        elif self.low is None or self.high is None or not 0 < self.high - self.low < math.inf:
            raise ValueError("wanted low and a higher high, or choices")
        elif self.log and self.low <= 0:
            raise ValueError(f"log: wanted low above 0, found {self.low}")
        return self


class SamplerSection(_Section):
    """An Optuna sampler as the policy."""

    sampler: str = Field(description="a sampler of optuna.samplers, such as TPESampler")
    space: dict[str, SpaceSection] = Field(
        min_length=1, description="the settings to search, by dotted name"
    )
    seed: int = Field(0, description="the sampler's seed")
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments for the sampler"
    )

    @model_validator(mode="after")
    def _settings(self) -> SamplerSection:
        _check_setting_names(self.space)
        return self


def _kind_of_policy(stated: object) -> str | None:
    """The form in which a policy is stated: mistakes are reported for that form only."""
    if isinstance(stated, str):
        return "<text>"
    if isinstance(stated, list):
        return "<list>"
    return "<sampler>" if isinstance(stated, Mapping | SamplerSection) else None


def _number_or_auto(stated: object) -> object:
    """Check a number of processes: one message, in place of one for each of its two forms."""
    is_number = isinstance(stated, int) and not isinstance(stated, bool) and stated >= 1
    if is_number or stated == "auto":
        return stated
    raise ValueError(f"loop.parallel: wanted a whole number, 1 or more, or auto, found {stated!r}")


class LoopSection(_Section):
    """How the loop continues and when it stops."""

    iterations: int = Field(4, ge=1, description="maximum number of iterations")
    patience: int = Field(
        2, ge=1, description="iterations without improvement before the loop stops"
    )
    metric: str | None = Field(
        None,
        min_length=1,
        description="the metric that decides which iteration, and which evaluation point of it, is "
        "best; by default the pass rate or score that all thresholds are about, else eval_loss",
    )
    time_budget_s: float | None = Field(
        None, gt=0, description="no iteration starts that would end after this many seconds"
    )
    seeds: int = Field(
        1, ge=1, le=100, description="number of seeds to train the best iteration with"
    )
    parallel: Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)] = Field(
        1,
        description="number of processes that train seeds and listed settings at once, or auto",
    )
    run_on: Annotated[
        str | dict[str, dict[str, Any] | None] | None, BeforeValidator(checked_engine)
    ] = Field(
        None,
        description="where to train: ray, a plugin's engine or module:function, or one of these "
        "with its options, such as {ray: {num_gpus: 1}}; by default on this machine",
    )
    ship: list[str] = Field(
        default_factory=list,
        description="files and folders that the loop's code reads, which run_on: ray sends along",
    )
    processes: int = Field(
        1, ge=1, description="number of processes, each with a device, that train one run together"
    )
    launcher: str | None = Field(
        None,
        min_length=1,
        description="the command that starts them, in place of torchrun on this machine",
    )
    labelled_only: bool = Field(
        False,
        description="whether training on a CPU projects to the vocabulary only what has a label",
    )
    policy: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[list[dict[str, Any]], Tag("<list>")]
        | Annotated[SamplerSection, Tag("<sampler>")],
        Discriminator(_kind_of_policy),
    ] = Field(
        "rules",
        description="what is trained next: rules, a list of settings, an Optuna sampler, or "
        "module:function",
    )

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, policy: Any) -> Any:
        if isinstance(policy, str) and policy != "rules" and ":" not in policy:
            raise ValueError(
                f"loop.policy: wanted rules, module:function, a list of settings or an Optuna "
                f"sampler, found {policy!r}"
            )
        if isinstance(policy, list):
            if not policy or not all(policy):
                raise ValueError("loop.policy: wanted a list of settings, found an empty one")
            for entry in policy:
                _check_setting_names(entry)
        return policy

    @model_validator(mode="after")
    def _launches(self) -> LoopSection:
        if self.launcher is not None and self.processes == 1:
            raise ValueError(
                "loop.launcher: wanted loop.processes too, the number of processes that it starts "
                "in all, 2 or more"
            )
        return self

    @property
    def limit(self) -> int:
        """Maximum number of iterations; if it is not stated, a list of settings is run in full."""
        return self.iterations if self.gone_through is None else 1 + len(self.gone_through)

    @property
    def gone_through(self) -> list[dict[str, Any]] | None:
        """The list of settings, if that is the policy and no number of iterations is stated."""
        is_cut = "iterations" in self.model_fields_set
        return self.policy if isinstance(self.policy, list) and not is_cut else None


def _check_setting_names(names: Mapping[str, Any]) -> None:
    for name in names:
        if not name.startswith(SETTING_GROUPS):
            raise ValueError(
                f"loop.policy: wanted settings by dotted name, such as "
                f"training.learning_rate, found {name!r}"
            )


class RegressionSection(_Section):
    """The regression gate: not worse than the last committed version."""

    alpha: float = Field(
        0.01, ge=LEAST_ALPHA, lt=MOST_ALPHA, description="highest probability of a false alarm"
    )
    max_regression: float = Field(
        0.05,
        gt=0,
        le=LARGEST_DROP,
        description="the drop that must be ruled out, relative to the loss, absolute for rates; "
        "otherwise the verdict is inconclusive",
    )
    min_regression: float = Field(
        0.01, ge=0, le=LARGEST_DROP, description="a smaller drop never fails, however certain it is"
    )
    metrics: list[str] = Field(
        ["eval_loss", "pass_rate"],
        min_length=1,
        description="the metrics that decide: eval_loss, pass_rate, token_accuracy, overfit_gap, "
        "a score, or a metric of the whole set",
    )
    fail_on: list[Literal["inconclusive", "not-comparable"]] = Field(
        default_factory=list, description="verdicts that fail besides regressed and incomplete"
    )


class ForgettingSection(RegressionSection):
    """The forgetting gate: no guard worse than the base or the last committed version."""

    metrics: list[str] = Field(
        ["eval_loss", "pass_rate"],
        min_length=1,
        description="the metrics that decide, as far as a guard has them: eval_loss, pass_rate, "
        "token_accuracy, score or score.<name>",
    )
    against: list[Literal["base", "baseline"]] = Field(
        ["base", "baseline"], min_length=1, description="what a guard is compared with"
    )

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: list[str]) -> list[str]:
        for name in metrics:
            if name not in LIFTED and not is_score(name):
                raise ValueError(
                    f"wanted {', '.join(LIFTED)}, score or score.<name>, found {name!r}"
                )
        return metrics


class LoopFile(_Section):
    """A pytest-ftloop loop: one fine-tuning goal."""

    name: str | None = Field(None, description="the loop's name; by default the file's")
    model: str = Field(
        "tiny",
        min_length=1,
        description="a hub id (id@revision), a folder, or tiny, the embedded base model",
    )
    tokenizer: TokenizerSection | None = Field(
        None, description="another tokenizer than the model's own, or tokens to add to it"
    )
    data: DataSection
    lora: dict[str, Any] = Field(
        default_factory=lambda: dict(DEFAULT_LORA), description="arguments of peft.LoraConfig"
    )
    training: dict[str, Any] = Field(
        default_factory=lambda: dict(DEFAULT_TRAINING), description="arguments of trl.SFTConfig"
    )
    scoring: ScoringSection = Field(default_factory=lambda: ScoringSection.model_validate({}))
    metrics: (
        Annotated[
            Annotated[list[str], Tag("<list>")] | Annotated[dict[str, str], Tag("<by name>")],
            Discriminator(lambda stated: "<by name>" if isinstance(stated, Mapping) else "<list>"),
        ]
        | None
    ) = Field(
        None,
        description="metrics of the whole eval set: built-in names, or name: module:function",
    )
    gates: dict[str, Any] = Field(
        default_factory=dict, description='conditions such as eval_loss: "<= 3.4"'
    )
    loop: LoopSection = Field(default_factory=lambda: LoopSection.model_validate({}))


def json_schema() -> dict[str, Any]:
    """The JSON schema of a loop file, for editors."""
    schema = LoopFile.model_json_schema()
    # `gates` has no model, since the name of a gate may contain a tag; its schema refers to this.
    schema["$defs"]["RegressionSection"] = RegressionSection.model_json_schema()
    schema["$defs"]["ForgettingSection"] = ForgettingSection.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
