"""The gates that a loop file states, each with its kind and its mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pytest_ftloop.config.gates import (
    Forgetting,
    Gate,
    Regression,
    check_compared,
    forgetting_guard,
    parse_gate,
    regression_tag,
)
from pytest_ftloop.config.mistakes import config_errors, found_text
from pytest_ftloop.config.sections import ForgettingSection, RegressionSection
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.metrics import split_name

if TYPE_CHECKING:
    from pytest_ftloop.core.errors import Locate, Location


@dataclass(frozen=True)
class StatedGates:
    """The gates of a loop file by kind, in the order of the file."""

    thresholds: tuple[Gate, ...] = ()
    regressions: tuple[Regression, ...] = ()
    forgetting: tuple[Forgetting, ...] = ()


def gates_in(
    values: Mapping[str, Any], of_the_set: Mapping[str, str], locate: Locate
) -> tuple[StatedGates, list[ConfigError]]:
    """The gates in a loop file's values, and the mistakes in them.

    `of_the_set` are the metrics of the whole eval set, with what computes them.
    """
    found: list[Gate | Regression | Forgetting] = []
    mistakes: list[ConfigError] = []
    stated = values.get("gates")
    for key, condition in stated.items() if isinstance(stated, Mapping) else ():
        name = str(key)
        try:
            found.append(_gate(name, condition, locate, of_the_set))
        except ConfigError as error:
            mistakes.append(error)
        except ValidationError as error:
            mistakes += config_errors(error, locate, f"gates.{name}")
    gates = StatedGates(
        tuple(gate for gate in found if isinstance(gate, Gate)),
        tuple(g for g in found if isinstance(g, Regression) and not isinstance(g, Forgetting)),
        tuple(gate for gate in found if isinstance(gate, Forgetting)),
    )
    return gates, mistakes


def _gate(
    name: str, stated: object, locate: Locate, of_the_set: Mapping[str, str]
) -> Gate | Regression | Forgetting:
    kind = split_name(name)[0]
    if kind == "regression":
        return _regression(name, stated, locate, of_the_set)
    if kind == "forgetting":
        return _forgetting(name, stated, locate)
    return parse_gate(name, stated, locate(f"gates.{name}"), of_the_set)


def _forgetting(name: str, stated: object, locate: Locate) -> Forgetting:
    """The gate that `forgetting: {alpha: 0.01}` states; null and true mean the defaults."""
    where = locate(f"gates.{name}")
    forgetting_guard(name, where)
    section = ForgettingSection.model_validate(_keys(name, stated, where))
    return Forgetting(
        name=name,
        alpha=section.alpha,
        max_regression=section.max_regression,
        min_regression=section.min_regression,
        metrics=tuple(dict.fromkeys(section.metrics)),
        fail_on=tuple(kind.replace("-", " ") for kind in section.fail_on),
        line=where.line if where else None,
        against=tuple(dict.fromkeys(section.against)),
    )


def _regression(
    name: str, stated: object, locate: Locate, of_the_set: Mapping[str, str]
) -> Regression:
    """The gate that `regression: {alpha: 0.01}` states; null and true mean the defaults."""
    where = locate(f"gates.{name}")
    regression_tag(name, where)
    section = RegressionSection.model_validate(_keys(name, stated, where))
    check_compared(name, section.metrics, of_the_set, locate(f"gates.{name}.metrics"))
    kinds = [kind.replace("-", " ") for kind in section.fail_on]
    return Regression(
        name=name,
        alpha=section.alpha,
        max_regression=section.max_regression,
        min_regression=section.min_regression,
        metrics=tuple(dict.fromkeys(section.metrics)),
        fail_on=tuple(kinds),
        line=where.line if where else None,
    )


def _keys(name: str, stated: object, where: Location | None) -> Mapping[str, Any]:
    """The keys of a gate that is judged by a test; none for null and true."""
    if isinstance(stated, Mapping):
        return stated
    if stated in (None, True):
        return {}
    raise ConfigError(
        f"gate {name}: wanted keys such as {{alpha: 0.01}}, found {found_text(stated)}",
        where=where,
        cure=f"Write {name}: {{}} for the defaults.",
    )
