"""Create the policy that a loop file or a hook asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.adjust.function import PARAMETERS, Adjust, Function, Listed
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.sampler import Dimension, Sampler
from pytest_ftloop.core.functions import load_function

if TYPE_CHECKING:
    from pytest_ftloop.adjust.policy import Policy
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.config.sections import SamplerSection


def policy_of(config: LoopConfig, hook: Adjust | None = None) -> Policy:
    """The policy of a loop; `hook`, the user's pytest hook, goes before it.

    Raises `ConfigError` for a function or sampler that does not exist.
    """
    stated, where = config.loop.policy, config.locate("loop.policy")
    policy: Policy
    if stated == "rules":
        policy = Rules()
    elif isinstance(stated, str):
        adjust = load_function("policy", stated, PARAMETERS, config.folder, where)
        policy = Function(stated, adjust, where=where)
    elif isinstance(stated, list):
        policy = Listed(tuple(stated))
    else:
        policy = _sampler(stated, config)
    if hook is not None:
        policy = Function("pytest_ftloop_adjust", hook, otherwise=policy)
    return policy


def _sampler(stated: SamplerSection, config: LoopConfig) -> Sampler:
    space = {
        name: Dimension(part.low, part.high, part.log, tuple(part.choices or ()))
        for name, part in stated.space.items()
    }
    where = config.locate("loop.policy.sampler")
    return Sampler(stated.sampler, space, stated.seed, stated.options, where)
