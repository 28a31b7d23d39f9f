"""Credentials: which settings and texts are one, so that none is written to a file or printed.

A setting is one by its name (`hub_token`, `password`), a text by its form (`hf_...`, `ghp_...`, a
URL with a password). Rows of data and outputs of a model are not searched: they are what is
trained on and measured, and a changed text would be another example.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

HIDDEN = "***"
"""Takes the place of a credential in a text."""

_NAMES = (
    r"(?:\w+_)?(?:auth|access|hub|hf|api|bearer|refresh|sas)_?tokens?|token"
    r"|(?:\w+_)?(?:passwords?|passwd|passphrase|secrets?|credentials?|authorization)"
    r"|(?:\w+_)?(?:api|access|secret|private|account)_?keys?"
)
"""Names of arguments that take a credential. `eos_token` and `pad_token` are words of a tokenizer.

By the arguments of transformers, trl, peft, huggingface_hub and fsspec's file systems.
"""

_FORMS = (
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|sk-(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic; a digit: no plain words
    r"|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"  # GitHub
    r"|glpat-[A-Za-z0-9_-]{16,}"  # GitLab
    r"|xox[a-z]-[A-Za-z0-9-]{10,}"  # Slack
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS
    r"|[Bb]earer [A-Za-z0-9._~+/-]{16,}=*"  # a request's header
    r")"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
)
_URL = r"(?<=://)[^\s/:@]{0,200}:[^\s/@]{1,200}(?=@)"
"""The user and password of a URL."""

_QUERY = (
    r"(?<=[?&])((?:[A-Za-z]{1,10}[_-]){0,2}"
    r"(?:[Tt]oken|[Aa]pi_?[Kk]ey|[Pp]assword|[Ss]ecret|[Ss]ignature|[Cc]redential|sig)=)[^&\s]{1,999}"
)
"""An argument of a URL, as of a signed one, which grants what it names."""

_VARIABLE = (
    r"(?<![A-Za-z0-9_])((?:[A-Z0-9]{1,30}_){0,6}"
    r"(?:TOKEN|API_?KEY|SECRET|PASSWORD|PASSWD|(?:SECRET_)?ACCESS_KEY)=[\"']?)[^\s\"']{1,999}"
)
"""A variable of the environment with its value, as a shell or a `.env` file sets it."""

_HEADER = (
    r"((?<![A-Za-z])[Aa]uthorization[\"']?\s?[:=]\s?[\"']?(?:[A-Za-z]{1,20} )?)"
    r"[^\s\"',}]{6,999}"
)
"""A request's header that is written out: `Authorization: Basic ...`."""

_STARTS = (
    *("hf_", "sk-", "ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "xox"),
    *("AKIA", "ASIA", "earer ", "PRIVATE KEY", "://", "uthorization"),
)
_GIVEN = (
    *("oken=", "ey=", "assword=", "ecret=", "ignature=", "redential=", "sig="),
    *("TOKEN=", "KEY=", "SECRET=", "PASSWORD=", "PASSWD="),
)
"""One of these is in each text that holds a credential. Searching for them is many times faster
than the expression, and nearly every record has none, nor any `=`."""


def hidden(text: str) -> str:
    """The text with `***` in place of every credential in it."""
    if not may_have_form(text):
        return text
    return _credential().sub(
        lambda match: f"{match[match.lastindex] if match.lastindex else ''}{HIDDEN}", text
    )


def is_credential_name(name: str) -> bool:
    """Whether an argument of this name takes a credential."""
    return re.fullmatch(_NAMES, name.rpartition(".")[2].replace("-", "_").lower()) is not None


def is_credential(name: str, value: object) -> bool:
    """Whether a setting is a credential, by its name or by the form of a text in it.

    True, false and null are none: `token: true` means the one of this machine.
    """
    if value is None or isinstance(value, bool) or value in ("", HIDDEN):
        return False
    return is_credential_name(name) or _has_form(value) or _lists_one(value)


def parted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings without their credentials, and the credentials alone, at the same keys.

    A mapping that held nothing else is left out; a list that holds one is a credential as a whole.
    """
    plain: dict[str, Any] = {}
    credentials: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and not is_credential_name(str(name)):
            inner, found = parted(value)
            if inner or not found:
                plain[name] = inner
            if found:
                credentials[name] = found
        elif is_credential(str(name), value):
            credentials[name] = value
        else:
            plain[name] = value
    return plain, credentials


def joined(plain: Mapping[str, Any], credentials: Mapping[str, Any]) -> dict[str, Any]:
    """Settings together with the credentials that were parted from them."""
    whole = dict(plain)
    for name, value in credentials.items():
        inner = whole.get(name)
        if isinstance(value, Mapping) and (inner is None or isinstance(inner, Mapping)):
            whole[name] = joined(inner or {}, value)
        else:
            whole[name] = value
    return whole


def names_in(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted names of nested settings: `model_init_kwargs.token`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from names_in(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def texts_in(value: object) -> Iterator[str]:
    """The texts among nested settings, and numbers as text: a password may be one."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)
    elif value is not None and not isinstance(value, bool) and value != "":
        yield str(value)


def cleaned(value: Any, exposed: list[str], path: str = "") -> Any:
    """A record's plain values without credentials; the dotted paths of those are appended.

    Settings are left out, and texts have `***` in their place.
    """
    if isinstance(value, str):
        if (clean := hidden(value)) != value:
            exposed.append(path)
        return clean
    if isinstance(value, list):
        return [cleaned(inner, exposed, f"{path}[{n}]") for n, inner in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        inner_path = f"{path}.{name}" if path else str(name)
        if path.startswith("settings") and not isinstance(inner, Mapping):
            if is_credential(str(name), inner):
                exposed.append(inner_path)
                continue
        # An adjustment has its setting's name beside the values.
        elif name in ("before", "after") and is_credential(str(value.get("setting", "")), inner):
            exposed.append(inner_path)
            inner = HIDDEN
        kept[name] = cleaned(inner, exposed, inner_path)
    return kept


def may_have_form(text: str) -> bool:
    """Whether a text is worth a search for credentials by their form; this takes microseconds."""
    return any(start in text for start in _STARTS) or (
        "=" in text and any(given in text for given in _GIVEN)
    )


def texts_with_credentials(value: object, path: str = "") -> Iterator[str]:
    """The dotted paths of the texts that hold a credential by its form, in any nested value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from texts_with_credentials(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from texts_with_credentials(inner, f"{path}[{number}]")
    elif isinstance(value, str) and hidden(value) != value:
        yield path


def _lists_one(value: object) -> bool:
    """Whether there is a credential by its name in the mappings of a list."""
    if isinstance(value, Mapping):
        return any(is_credential(str(name), inner) for name, inner in value.items())
    return isinstance(value, list | tuple) and any(_lists_one(inner) for inner in value)


def _has_form(value: object) -> bool:
    return next(texts_with_credentials(value), None) is not None


@cache
def _credential() -> re.Pattern[str]:
    """Compiled when it is first needed: that takes longer than importing the module."""
    return re.compile(f"{_FORMS}|{_URL}|{_QUERY}|{_VARIABLE}|{_HEADER}", re.ASCII)
