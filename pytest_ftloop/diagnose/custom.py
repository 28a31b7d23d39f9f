"""Findings of the user's own code. They are checked, so that the log can be read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.functions import described, raised_at
from pytest_ftloop.core.records import SEVERITIES, Finding
from pytest_ftloop.diagnose.evidence import Evidence

NAME = "pytest_ftloop_diagnose"

Diagnose = Callable[[Evidence], Sequence[Finding]]
"""Returns the user's findings on one iteration. They follow the package's own."""


def findings_of_hook(plugin: str, call: Callable[[], object]) -> tuple[Finding, ...]:
    """The findings that a plugin's hook returns. A `ConfigError` for a mistake names the plugin."""
    try:
        found = call()
    except Exception as error:
        raise ConfigError(
            f"{NAME} of {plugin} raised {described(error)}",
            cure=f"It was raised at {raised_at(error)}.",
        ) from error
    if found is None:
        return ()
    if isinstance(found, str | Finding) or not isinstance(found, Sequence):
        raise _mistake(plugin, f"wanted a list of findings, found {type(found).__name__}")
    for number, finding in enumerate(found):
        if why := _why_wrong(finding):
            raise _mistake(plugin, f"finding {number + 1}: wanted {why}")
    return tuple(found)


def _why_wrong(finding: object) -> str:
    """What was wanted instead, and what was found; empty for a valid finding."""
    if not isinstance(finding, Finding):
        return f"a pytest_ftloop.Finding, found {type(finding).__name__}"
    for name in ("kind", "message", "remedy"):
        value = getattr(finding, name)
        if not isinstance(value, str) or not (value.strip() or name == "remedy"):
            return f"a text as {name}, found {value!r}"
    if finding.severity not in SEVERITIES:
        return f"one of {', '.join(SEVERITIES)} as severity, found {finding.severity!r}"
    if not isinstance(finding.tunable, bool):
        return f"true or false as tunable, found {finding.tunable!r}"
    if not isinstance(finding.evidence, Mapping):
        return f"a dict as evidence, found {type(finding.evidence).__name__}"
    for key, value in finding.evidence.items():
        if not isinstance(key, str) or not isinstance(value, int | float | str):
            return f"numbers and texts by name as evidence, found {key!r}: {value!r}"
    return ""


def _mistake(plugin: str, text: str) -> ConfigError:
    return ConfigError(
        f"{NAME} of {plugin}: {text}",
        cure="Return a list of pytest_ftloop.Finding, or None if there are none.",
    )
