"""Rules on runs that learn from rewards (GRPO, RLOO, PPO): whether the rewards say anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.any_trainer.series import Series

    Logged = Mapping[str, Series]

FEWEST = 5
"""Fewest logged steps that the rules look at."""

NO_SPREAD = 0.9
"""Mean share of groups without any spread of rewards from which on nothing is learned. In practice
healthy runs reach 0.3 to 0.6 late, when many prompts are solved."""

SOLVED_SHARE = 0.95
"""Share of the highest reward at which a run without spread has solved its prompts."""

CLIPPED = 0.9
"""Mean share of completions cut at the length limit from which on rewards are of cut text."""

MOVED_TOO_FAR = 0.5
"""Mean share of clipped updates from which on half of each batch teaches nothing."""

_PREFERENCES = {"chosen", "rejected", "margins", "accuracies"}


def no_spread(logged: Logged) -> Finding | None:
    """Every completion of a group gets the same reward, so there is no advantage.

    Signal: the mean of frac_reward_zero_std over the run, or its second half, is 0.9 or more;
    without it, the share of steps with a reward_std of 0; without both, a mean reward that is the
    same at every step. If the reward rose to its highest by
    then, the prompts are solved: `reward-saturated`. Source: the advantage is the reward less its
    group's mean. Minimum data: 5 logged steps.
    """
    shares = _zero_spread(logged)
    rewards = [value for _, value in logged.get("reward") or logged.get("objective/scores", ())]
    if len(shares) < FEWEST:
        return None
    late = shares[len(shares) // 2 :]
    if max(fmean(shares), fmean(late)) < NO_SPREAD:
        return None
    if _is_solved(rewards, shares):
        return None
    none = sum(share >= 1 for share in shares)
    mean = fmean(rewards) if rewards else 0.0
    return Finding(
        kind="no-signal",
        severity="error",
        message=(
            f"Nothing can be learned: in {none} of {len(shares)} logged steps all completions of "
            f"each group got one reward (mean {mean:.3g}), so every advantage is 0."
        ),
        evidence={
            "steps": len(shares),
            "steps_without_spread": none,
            "zero_std_mean": fmean(shares),
            "reward_mean": mean,
            "reward_highest": max(rewards, default=0.0),
        },
        remedy=(
            "Read some completions beside their rewards: does the reward function see the format "
            "that the model writes, and can the model reach it at all? Reward partial success, "
            "take easier prompts, raise temperature and num_generations, or fine-tune on examples "
            "first."
        ),
        tunable=False,
    )


def reward_saturated(logged: Logged) -> Finding | None:
    """The prompts are solved: all completions get the highest reward, and nothing is left to learn.

    Signal: as `no_spread`, but the reward rose, and is at 95% of its highest at the end. Minimum
    data: 5 logged steps.
    """
    shares = _zero_spread(logged)
    points = logged.get("reward", ())
    rewards = [value for _, value in points]
    late = shares[len(shares) // 2 :]
    if len(shares) < FEWEST or fmean(late) < NO_SPREAD or not _is_solved(rewards, shares):
        return None
    top = max(rewards)
    step = next(at for at, value in points if value >= SOLVED_SHARE * top)
    return Finding(
        kind="reward-saturated",
        severity="info",
        message=(
            f"The reward is at its highest, {top:.3g}, since step {step}, and {fmean(late):.0%} of "
            "the groups have no spread any more: these prompts teach nothing more."
        ),
        evidence={"reward_highest": top, "first_step": step, "zero_std_late": fmean(late)},
        remedy="Stop here, or take harder prompts; look for completions that trick the reward.",
        tunable=False,
    )


def clipped_completions(logged: Logged) -> Finding | None:
    """Completions are cut at the length limit before they end.

    Signal: the mean of completions/clipped_ratio over the second half is 0.9 or more; for PPO, no
    completion of the second half has an end token (val/num_eos_tokens). Minimum data: 5 steps.
    """
    ratio, name = _late(logged, "completions/clipped_ratio"), "completions/clipped_ratio"
    if ratio is None:
        ends = _late(logged, "val/num_eos_tokens")
        ratio, name = (None if ends is None else float(ends == 0)), "val/num_eos_tokens"
    if ratio is None or ratio < CLIPPED:
        return None
    length = _late(logged, "completions/mean_length")
    long = f" (mean length {length:.0f} tokens)" if length else ""
    evidence: dict[str, float | int | str] = {"clipped_share": ratio, "figure": name}
    return Finding(
        kind="clipped-completions",
        severity="warning",
        message=(
            f"{ratio:.0%} of the completions are cut at the length limit{long}: rewards are given "
            "to text without its end."
        ),
        evidence=evidence | ({"mean_length": length} if length else {}),
        remedy=(
            "Raise max_completion_length, or prompt for shorter answers; check that the model's "
            "end token is the tokenizer's, and that the chat template ends a turn with it."
        ),
        tunable=False,
    )


def dead_reward(logged: Logged) -> Finding | None:
    """One of several reward functions gives 0 to every completion.

    Signal: rewards/NAME/mean (rewards/NAME in older versions) is 0 at every logged step, its
    spread too, while another function's moves. A penalty may well be 0. Minimum data: 5 steps.
    """
    means = reward_means(logged)
    moving = [name for name, points in means.items() if len({value for _, value in points}) > 1]
    dead = [
        name
        for name, points in means.items()
        if len(points) >= FEWEST
        and not any(value for _, value in points)
        and not any(value for _, value in logged.get(f"rewards/{name}/std", ()))
        and not any(word in name.lower() for word in ("penalty", "penal", "cost"))
    ]
    if not dead or not moving:
        return None
    names = ", ".join(dead[:3])
    count = len(means[dead[0]])
    return Finding(
        kind="dead-reward",
        severity="warning",
        message=(
            f"The reward function `{names}` gave 0 to every completion in all {count} logged "
            "steps: the model is never told what it asks for."
        ),
        evidence={"functions": names, "steps": count, "other_functions": ", ".join(moving[:3])},
        remedy=(
            "Call it on one completion as the trainer does (a list of messages for chat prompts, "
            "text otherwise) and see why it gives 0: a pattern that never matches, an answer "
            "column with other text, an exception that counts as 0. Reward partial success."
        ),
        tunable=False,
    )


def clipped_updates(logged: Logged) -> Finding | None:
    """The policy moves so far per batch that most of its updates are clipped.

    Signal: the mean share of clipped ratios over the second half is 0.5 or more
    (clip_ratio/region_mean, clip_ratio, policy/clipfrac_avg). Minimum data: 5 steps.
    """
    names = ("clip_ratio/region_mean", "clip_ratio", "policy/clipfrac_avg")
    name = next((name for name in names if name in logged), "")
    share = _late(logged, name)
    if share is None or share < MOVED_TOO_FAR:
        return None
    return Finding(
        kind="clipped-updates",
        severity="warning",
        message=f"{share:.0%} of the updates are clipped ({name}): they teach nothing.",
        evidence={"clipped_share": share, "figure": name},
        remedy=(
            "Lower the learning rate by a factor of 3 to 10, or take fewer updates per batch of "
            "completions (num_iterations, steps_per_generation, num_ppo_epochs)."
        ),
    )


def reward_means(logged: Logged) -> dict[str, Series]:
    """The mean of each reward function over the run, by its name."""
    found = {}
    for key, points in logged.items():
        first, _, rest = key.partition("/")
        name = rest.removesuffix("/mean")
        if first == "rewards" and "/" not in name and name not in _PREFERENCES:
            found[name] = points
    return found


def _zero_spread(logged: Logged) -> list[float]:
    """The share of groups without spread at each logged step."""
    if points := logged.get("frac_reward_zero_std"):
        return [value for _, value in points]
    if points := logged.get("reward_std"):
        return [float(abs(value) < 1e-6) for _, value in points]
    # Without a spread: a mean reward that never changes.
    rewards = [value for _, value in logged.get("reward") or logged.get("objective/scores", ())]
    return [1.0] * len(rewards) if len(set(rewards)) == 1 else [0.0] * len(rewards)


def _is_solved(rewards: Sequence[float], shares: Sequence[float]) -> bool:
    """Whether the reward rose to its highest before the spread was gone."""
    if len(rewards) < FEWEST:
        return False
    part = max(1, len(rewards) // 4)
    first, last, top = fmean(rewards[:part]), fmean(rewards[-part:]), max(rewards)
    rose = last > first and fmean(shares[:part]) < NO_SPREAD
    return top > 0 and last >= SOLVED_SHARE * top and rose


def _late(logged: Logged, name: str) -> float | None:
    """The mean of a figure over the second half of the run; None without 5 values."""
    values = [value for _, value in logged.get(name, ())]
    return fmean(values[len(values) // 2 :]) if len(values) >= FEWEST else None


RULES: tuple[Callable[[Logged], Finding | None], ...] = (
    no_spread,
    dead_reward,
    clipped_completions,
    clipped_updates,
    reward_saturated,
)
