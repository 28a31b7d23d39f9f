"""The moves: each returns the adjustments that it would make in a state, or none.

A move stays within the bounds. `State.allows` decides whether its result is new.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_ftloop.adjust.state import (
    ALPHA,
    DECAY,
    DECAYS,
    DEFAULTS,
    DROPOUT,
    DROPOUTS,
    EPOCHS,
    HIGH_DROPOUT,
    HIGH_RATE,
    LOW_RANK,
    MAX_STEPS,
    MOST_EPOCHS,
    PROMISING,
    RANK,
    RANKS,
    RATE,
    RATES,
    RSLORA,
    START,
    TIGHT,
    TOO_HIGH,
    WARMUP,
    Adjustments,
    State,
    family,
    figure,
    has,
    rate_of,
    times,
)
from pytest_ftloop.core.chain import rank_key
from pytest_ftloop.core.records import Adjustment, Finding, Iteration, ended_as_hopeless

if TYPE_CHECKING:
    from collections.abc import Iterable


def calm(state: State) -> Adjustments:
    """Lower a learning rate that is too high: to 1/3, or 1/10 if the evidence is strong.

    If the rate is further above the usual one, by that factor, at most 30. After NaN, also warm up.
    """
    found = state.finding(*TOO_HIGH, "oscillation")
    assert found is not None
    peak = _evidence(found, "train_peak", 0) / (_evidence(found, "train_first", 1) or 1)
    ratio = _evidence(found, "ratio", 1)
    again = sum(has(iteration, TOO_HIGH) for iteration in state.chain) > 1
    far = found.kind == "non-finite" or again or peak > 2 or not ratio < 2.5
    away = state.rate / state.usual if state.usual else 0.0
    lower = _down(state, max(10 if far else 3, min(away, 30)), _because(state, found))
    return (*lower, *warm_up(state)) if lower and found.kind == "non-finite" else lower


def warm_up(state: State) -> Adjustments:
    """Warm up over the first tenth of the steps (trl takes a float below 1 as a ratio)."""
    because = "a warm-up keeps the first steps stable"
    return () if state.get(WARMUP) else _set(state, WARMUP, 0.1, because)


def climb(state: State) -> Adjustments:
    """Raise the rate of a run that learned too little, by 10, 5 or 3 depending on its eval loss.

    Other moves are better for rates from 1e-2 on, or if the ceiling is less than 3 times higher.
    """
    found = state.finding(*PROMISING)
    if found is None:
        return ()
    fall = _evidence(found, "eval_fall", 1)
    late = _late_fall(found)
    if found.kind == "not-learning":
        return _up(state, 10, _because(state, found))
    if state.rate >= HIGH_RATE:
        slower = _down(state, 5, f"{state.rate:g} is high for LoRA, and the run was not finished")
        return slower if state.bracket[0] == 0 else ()
    if state.bracket[1] < 3 * state.rate:
        return ()
    factor = 10 if fall < 0.15 else 5 if fall < 0.8 or late >= 0.1 else 3
    return _up(state, factor, _because(state, found))


def to_usual_rate(state: State) -> Adjustments:
    """Move the rate towards the usual one for the model's width, if it is over 3 times away.

    By a factor of 30 at most, since the width only gives a direction. If a rate on that side was
    worse, the measurement counts and the rate stays.
    """
    away, (low, high) = state.usual / state.rate, state.bracket
    if not away or 1 / 3 <= away <= 3 or (low > 0 if away < 1 else high < math.inf):
        return ()
    because = f"LoRA on a model this wide usually does best at about {state.usual:.1g}"
    if away > 1:
        return _up(state, min(away, 30), because)
    return _down(state, min(1 / away, 30), because)


def search_rate(state: State) -> Adjustments:
    """Search the rate without any finding to go by: higher first, by a factor of 2, else lower.

    The factor is 3 without an overfitting gap, since nothing is memorised yet, and 5 after little
    learning. If rates on both sides of the best one are known, it is the vertex of the parabola
    through the three, with both axes logarithmic. If one of them has no finite figure, it is the
    geometric mean on the wider side.
    """
    low, high = state.bracket
    if low and high < math.inf and (vertex := _vertex(state, low, high)):
        if max(vertex, state.rate) < 1.1 * min(vertex, state.rate):
            return ()
        because = f"of learning rates {low:g}, {state.rate:g} and {high:g} the middle one is best"
        return _set_rate(state, vertex, because)
    factor = 5 if _learned_little(state) else 3 if has_no_gap(state, 0.02) else 2
    up = _up(state, factor, "a higher learning rate may do better")
    down = _down(state, 2, "a lower learning rate may do better")
    if low == 0 and high == math.inf:
        down_first = state.rate >= HIGH_RATE
    elif low == 0:
        down_first = high < 4 * state.rate
    else:
        down_first = state.rate / low > high / state.rate
    first, second = (down, up) if down_first else (up, down)
    return first if first and state.allows(first) else second


def within_practice(state: State) -> Adjustments:
    """Bring dropout and rank into the usual range for LoRA, where they hinder learning less."""
    dropout, rank = state.get(DROPOUT), state.get(RANK)
    if dropout > HIGH_DROPOUT:
        because = f"a dropout of {dropout:g} slows down a run that memorises nothing"
        return _set(state, DROPOUT, DROPOUTS[0], because)
    if rank < LOW_RANK:
        return _rank(state, DEFAULTS[RANK], f"a rank of {rank} can learn little")
    return ()


def halve_rate(state: State) -> Adjustments:
    """Halve the learning rate, which memorises less."""
    return _down(state, 2, _overfits(state))


def more_dropout(state: State) -> Adjustments:
    """Raise the dropout to the next value."""
    return _next_of(state, DROPOUT, DROPOUTS, _overfits(state))


def more_decay(state: State) -> Adjustments:
    """Raise the weight decay to the next value."""
    return _next_of(state, DECAY, DECAYS, _overfits(state))


def lower_rank(state: State) -> Adjustments:
    """Halve the rank, at the same scale."""
    return _rank(state, int(state.get(RANK)) // 2, _overfits(state))


def higher_rank(state: State) -> Adjustments:
    """Double the rank, at the same scale."""
    return _rank(state, int(state.get(RANK)) * 2, "a higher rank can learn more")


def more_epochs(state: State) -> Adjustments:
    """Train 3 times as long if the loss still falls or nothing is memorised, else twice as long."""
    because = "longer training may do better"
    times_ = 3 if state.finding("underfit") or has_no_gap(state, 0.1) else 2
    steps, epochs = state.get(MAX_STEPS), state.get(EPOCHS)
    if steps > 0:
        most = int(MOST_EPOCHS * _steps_per_epoch(state.parent))
        return _set(state, MAX_STEPS, max(steps, min(times_ * steps, most)), because)
    return _set(state, EPOCHS, max(epochs, min(times_ * epochs, MOST_EPOCHS)), because)


def fewer_epochs(state: State) -> Adjustments:
    """Train only up to the best point if it came early, so that the schedule ends there."""
    points = [point for point in state.parent.evals if math.isfinite(point.eval_loss)]
    if not points:
        return ()
    best, last = min(points, key=lambda point: point.eval_loss), points[-1]
    if best.epoch > 0.6 * last.epoch:
        return ()
    because = f"the eval loss was lowest at epoch {best.epoch:.3g} of {last.epoch:.3g}"
    if state.get(MAX_STEPS) > 0:
        return _set(state, MAX_STEPS, max(best.step, 1), because)
    whole = max(1, math.ceil(best.epoch))
    fewer = whole if whole < state.get(EPOCHS) else float(f"{best.epoch:.2g}")
    return _set(state, EPOCHS, fewer, because) if fewer > 0 else ()


def _up(state: State, factor: float, because: str) -> Adjustments:
    rate, high = max(state.rate, state.floor), state.bracket[1]
    after = min(factor * rate, math.sqrt(rate * high), RATES[1])
    return _set_rate(state, after, because) if after >= TIGHT * rate else ()


def _down(state: State, factor: float, because: str) -> Adjustments:
    rate, low = min(state.rate, state.ceiling), state.bracket[0]
    after = min(max(rate / factor, math.sqrt(low * rate), RATES[0]), RATES[1])
    return _set_rate(state, after, because) if rate >= TIGHT * after else ()


def _set_rate(state: State, rate: float, because: str) -> Adjustments:
    tried = [rate_of(i) for i in (*state.chain, *state.known.iterations)]
    ceiling, floor = state.ceiling, state.floor
    patterns = []
    if state.diverged:
        at = [r for r in tried if r >= ceiling]
        above = " or above" if max(at) > ceiling else ""
        patterns.append((f"{ceiling:g}{above} diverged", len(state.diverged), len(at)))
    if floor:
        at = [r for r in tried if r <= floor]
        below = " or below" if min(at) < floor else ""
        idle = sum(rate_of(i) <= floor for i in state.idle)
        patterns.append((f"{floor:g}{below} learned nothing", idle, len(at)))
    for said, count, of in patterns:
        end = "" if because.endswith(".") else ";"
        because += f"{end} learning_rate {said} in {count} of {times(of, 'iteration')}"
    return _set(state, RATE, float(f"{rate:.1e}"), because)


def _set(state: State, setting: str, after: Any, because: str) -> Adjustments:
    before = state.get(setting)
    return () if after == before else (Adjustment(setting, before, after, because),)


def _next_of(state: State, setting: str, ladder: Iterable[float], because: str) -> Adjustments:
    after = next((value for value in ladder if value > state.get(setting)), None)
    return () if after is None else _set(state, setting, after, because)


def _rank(state: State, rank: int, because: str) -> Adjustments:
    before, alpha = state.get(RANK), state.get(ALPHA)
    # An adapter that goes on being trained keeps its rank.
    if not RANKS[0] <= rank <= RANKS[1] or state.get(START) is not None:
        return ()
    # rsLoRA scales by alpha / sqrt(r), LoRA by alpha / r; peft accepts whole numbers only.
    root = bool(state.get(RSLORA))
    scaled = max(1, round(alpha * (math.sqrt(rank / before) if root else rank / before)))
    old, new = (a / (math.sqrt(r) if root else r) for a, r in ((alpha, before), (scaled, rank)))
    scale = "lora_alpha / sqrt(r)" if root else "lora_alpha / r"
    kept = f"keeps {scale} at {old:.3g}" if math.isclose(old, new) else f"{scale} becomes {new:.3g}"
    return (*_set(state, RANK, rank, because), *_set(state, ALPHA, scaled, kept))


def _evidence(found: Finding, name: str, default: float) -> float:
    """A figure of a finding; a user's finding of the same kind may lack it."""
    value = found.evidence.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _late_fall(found: Finding) -> float:
    """The fall of the eval loss in the last quarter, if it fell evenly since the point before it.

    Older records have the figure itself.
    """
    since, last = _evidence(found, "since_step", 0), _evidence(found, "last_step", 0)
    if last <= since:
        return _evidence(found, "eval_fall_last_quarter", 0)
    return _evidence(found, "eval_fall_since", 0) * min(1.0, 0.25 * last / (last - since))


def _because(state: State, found: Finding) -> str:
    return f"iteration {state.parent.number}: {found.message}"


def _overfits(state: State) -> str:
    found = state.finding("overfitting", "overconfidence")
    return _because(state, found) if found else "less overfitting"


def _learned_little(state: State) -> bool:
    base = state.parent.base.get("eval_loss", math.nan)
    return figure(state.parent, "eval_loss") > 0.8 * base


def has_no_gap(state: State, within: float) -> bool:
    """Whether eval and train loss differ by at most this fraction of the train loss."""
    gap, train_loss = (figure(state.parent, name) for name in ("overfit_gap", "train_loss"))
    return abs(gap) <= within * train_loss


def _best_at(state: State, rate: float) -> float:
    """The best figure at a learning rate, lower is better; infinity without a complete run.

    Only runs that differ from the parent in nothing but the rate are on the same parabola.
    """
    like = family(state.parent)
    at = [
        i
        for i in state.chain
        if rate_of(i) == rate
        and family(i) == like
        and not has(i, TOO_HIGH)
        and not ended_as_hopeless(i)
    ]
    return min((rank_key(i, state.metric)[1] for i in at), default=math.inf)


def _vertex(state: State, low: float, high: float) -> float:
    """The rate at the minimum of the parabola through these rates; 0: unknown."""
    rates = (low, state.rate, high)
    figures = [_best_at(state, rate) for rate in rates]
    if not low < state.rate < high or not all(map(math.isfinite, figures)):
        return 0.0
    if min(figures) > 0:
        figures = [math.log(value) for value in figures]
    x, (y_low, y, y_high) = [math.log(rate) for rate in rates], figures
    left, right = (y - y_low) / (x[1] - x[0]), (y_high - y) / (x[2] - x[1])
    if not left <= 0 <= right or left == right:
        return 0.0
    return math.exp((x[0] + x[1]) / 2 + left / (left - right) * (x[2] - x[0]) / 2)


def _steps_per_epoch(iteration: Iteration) -> float:
    last = iteration.evals[-1] if iteration.evals else None
    return last.step / last.epoch if last and last.epoch else 1.0
