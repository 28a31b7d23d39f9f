"""Credentials: known by name and by form, hidden in texts, parted from settings."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.credentials import (
    HIDDEN,
    cleaned,
    hidden,
    is_credential_name,
    joined,
    names_in,
    parted,
)
from pytest_ftloop.core.errors import FtloopError, Location

BODY = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"
FORMS = (
    f"hf_{BODY}",
    f"sk-{BODY}",
    f"sk-proj-{BODY}",
    f"sk-ant-api03-{BODY}",
    *(f"gh{kind}_{BODY}" for kind in "opsur"),
    f"github_pat_11ABC_{BODY}",
    f"glpat-{BODY[:20]}",
    "xoxb-1234567890-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    f"Bearer {BODY}",
)
"""Texts that are a credential as a whole."""

WITHIN = (
    ("https://me:hunter2@host/repo.git", "https://***@host/repo.git"),
    ("s3://key:word@bucket", "s3://***@bucket"),
    (f"https://x-access-token:ghs_{BODY}@github.com/a/b", "https://***@github.com/a/b"),
    ("https://h/x?token=abc&page=2", "https://h/x?token=***&page=2"),
    ("https://h/x?a=1&X-Amz-Signature=0f0f", "https://h/x?a=1&X-Amz-Signature=***"),
    ("https://h/x?api_key=abc", "https://h/x?api_key=***"),
    ("export HF_TOKEN=abc", "export HF_TOKEN=***"),
    ("OPENAI_API_KEY='abc'", "OPENAI_API_KEY='***'"),
    ("AWS_SECRET_ACCESS_KEY=abc/d=", "AWS_SECRET_ACCESS_KEY=***"),
    ("PASSWORD=abc", "PASSWORD=***"),
    ("Authorization: Basic bWU6aHVudGVyMg==", "Authorization: Basic ***"),
    ('{"authorization": "open-sesame"}', '{"authorization": "***"}'),
)
"""Texts that hold one, and what is shown of them."""

PLAIN = (
    "",
    "gpt2",
    "meta-llama/Llama-3.2-1B@0123456789abcdef0123456789abcdef01234567",
    "task-oriented-dialogue-generation-model",
    "sk-learn-is-a-name-without-any-digit",
    "hf_olmo",
    "hf-internal-testing/tiny-random-gpt2",
    "https://huggingface.co/gpt2",
    "https://git@host/repo.git",
    "http://localhost:8080/v1",
    "at 12:30 write to me@host.example",
    "token_accuracy >= 0.9",
    "the bearer of this",
    "the authorization of this request",
    "MAX_TOKENS=12",
    "eos_token=</s>",
    "0123456789abcdef" * 4,
)
"""Texts without one."""

NAMES = (
    *("token", "hub_token", "push_to_hub_token", "use_auth_token", "access_token"),
    *("api_key", "apiKey", "api-key", "password", "db_password", "passwd", "secret"),
    *("client_secret", "aws_secret_access_key", "private_key", "account_key", "sas_token"),
    *("Authorization", "credentials", "training.hub_token"),
    *("training.model_init_kwargs.token", "HF_TOKEN"),
)
"""Arguments that take one."""

OTHER_NAMES = (
    *("eos_token", "pad_token", "trainable_token_indices", "include_num_input_tokens_seen"),
    *("max_new_tokens", "tokens", "token_accuracy", "key", "keys", "monkey", "author"),
    "secretary",
)
"""Arguments that take something else."""


@pytest.mark.parametrize("form", FORMS)
def test_a_text_of_the_form_of_a_credential_is_hidden(form: str) -> None:
    """Whatever stands around it, nothing of it is left."""
    for before, after in (
        ("", ""),
        ("found '", "' in it"),
        ("(", ")"),
        ("x=", ", y"),
        ("\n", "\n"),
    ):
        assert f"{before}{HIDDEN}{after}" == hidden(f"{before}{form}{after}")


@pytest.mark.parametrize(("text", "shown"), WITHIN)
def test_of_a_url_only_the_credential_is_hidden(text: str, shown: str) -> None:
    """User and password, and arguments that grant something; the address can be read."""
    assert shown == hidden(text)
    assert f"two: {shown} {shown}" == hidden(f"two: {text} {text}")


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_text_stays(text: str) -> None:
    """Model ids, hashes, addresses and words that begin like a credential are none."""
    assert text == hidden(text)


@pytest.mark.parametrize(
    ("text", "longest_s"),
    [
        ("a.b-" * 50_000, 1.0),
        ("sk-" * 50_000, 1.0),
        ("://" * 50_000, 1.0),
        ("?token=" * 9_999, 1.0),
        ("A_" * 50_000, 1.0),
        ("A_TOKEN" * 20_000, 1.0),
        ("authorization: x " * 9_999, 1.0),
    ],
)
def test_hiding_takes_time_in_proportion(text: str, longest_s: float) -> None:
    """A long text that nearly matches everywhere is searched in less than a second."""
    begun = time.process_time()
    hidden(text + "hf_")
    assert time.process_time() - begun < longest_s


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_that_a_value_is_a_credential(name: str) -> None:
    """Arguments of hubs and file systems, in any spelling, also as a dotted setting."""
    assert is_credential_name(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_of_something_else(name: str) -> None:
    """Tokens of a tokenizer, counts and keys in general are no credentials."""
    assert not is_credential_name(name)


names = st.sampled_from(["r", "token", "kwargs", "api_key", "eos_token", "nested", "x"])
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(FORMS)
settings = st.recursive(
    st.dictionaries(names, leaves | st.lists(leaves, max_size=2), max_size=4),
    lambda inner: st.dictionaries(names, inner | leaves, max_size=3),
    max_leaves=8,
)


@given(settings)
def test_parted_settings_join_again(stated: dict[str, Any]) -> None:
    """What is parted holds no credential, and both together are what was stated."""
    plain, credentials = parted(stated)
    assert stated == joined(plain, credentials)
    assert ({}, plain) == parted(plain)[::-1]
    assert not any(form in repr(plain) for form in FORMS)


@pytest.mark.parametrize("held", [{"token": "x"}, {"a": {"api_key": "x"}}, [{"password": "x"}]])
def test_a_list_of_mappings_is_searched(held: Any) -> None:
    """One that holds a credential by its name is one as a whole."""
    plain, credentials = parted({"steps": [held, {"a": 1}], "others": [{"a": {"b": 1}}]})
    assert {"others": [{"a": {"b": 1}}]} == plain
    assert {"steps": [held, {"a": 1}]} == credentials


def test_a_mapping_of_credentials_alone_is_left_out() -> None:
    """So settings that differ by a credential only are the same settings."""
    stated = {"model_init_kwargs": {"token": "x"}, "empty": {}, "kwargs": {"token": "y", "a": 1}}
    plain, credentials = parted(stated)
    assert {"empty": {}, "kwargs": {"a": 1}} == plain
    assert ["model_init_kwargs.token", "kwargs.token"] == list(names_in(credentials))


def test_a_record_is_cleaned_and_the_keys_are_told() -> None:
    """Settings are left out, texts have `***` in their place, and every key is named."""
    exposed: list[str] = []
    record = {
        "settings": {"training": {"hub_token": "x", "seed": 1, "token": True}},
        "adjustments": [{"setting": "training.hub_token", "before": None, "after": "y"}],
        "facts": {"recoveries": [f"see https://a:{BODY}@h", "fine"]},
    }
    clean = {
        "settings": {"training": {"seed": 1, "token": True}},
        "adjustments": [{"setting": "training.hub_token", "before": None, "after": HIDDEN}],
        "facts": {"recoveries": ["see https://***@h", "fine"]},
    }
    assert clean == {key: cleaned(value, exposed, key) for key, value in record.items()}
    assert ["settings.training.hub_token", "adjustments[0].after", "facts.recoveries[0]"] == exposed


@pytest.mark.parametrize("form", [*FORMS, *(text for text, _ in WITHIN)])
def test_an_error_never_shows_a_credential(form: str) -> None:
    """In its message, its place and its cure."""
    error = FtloopError(f"found {form}", where=Location(f"{form}.yaml", 3), cure=f"Remove {form}.")
    assert form not in f"{error}{error.message}{error.cure}{error.args}"
    assert HIDDEN in error.message
