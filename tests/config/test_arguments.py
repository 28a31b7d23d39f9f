"""The arguments under `lora:` and `training:` are checked with all else, without torch."""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from pytest_ftloop.config import arguments, known_arguments
from pytest_ftloop.config.arguments import mistakes, old_names
from pytest_ftloop.config.old_names import ALIASES, REFUSED, RENAMED
from pytest_ftloop.core.errors import ConfigError, Location
from tests.config.config_cases import DATA
from tests.config.test_mistakes import refused

_version = importlib.metadata.version

TABLES = {
    "lora": get_type_hints(known_arguments.Lora),
    "training": get_type_hints(known_arguments.Training),
}


@pytest.fixture(autouse=True)
def _table_fits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also in the light install, or beside other versions, the table is that of the installed."""
    with monkeypatch.context() as patched:
        installed(patched)
        yield
    arguments.known.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """As if these versions were installed; None: not at all."""

    def version(name: str) -> str:
        if name not in known_arguments.VERSIONS:
            return _version(name)
        found = versions.get(name, known_arguments.VERSIONS[name])
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    arguments.known.cache_clear()


def test_all_mistakes_at_once(read: Any) -> None:
    """Names, types and bounds in both sections and in a policy are told together, each once."""
    told = refused(
        read,
        DATA + "lora:\n  rank: 8\n  bias: some\ntraining:\n  learning_rat: 1\n"
        "  max_seq_length: 512\n  learning_rate: fast\n  optim: adamw_toch\n  push_to_hub: true\n"
        "  per_device_train_batch_size: 0\n  num_train_epochs: 0\nloop:\n  policy:\n"
        "  - training.lr: 1\n  - training.seed: x\nmodle: gpt2\n",
    )
    lines = [line.removeprefix("s.ftloop.yaml:") for line in told.splitlines()]
    assert [
        "3: lora.rank is not an argument of LoraConfig",
        "  Write r.",
        "4: lora.bias: wanted 'none', 'all' or 'lora_only', found 'some'",
        "  Valid names: none, lora_only, all.",
        "6: training.learning_rat is not an argument of SFTConfig",
        "  Did you mean 'learning_rate'?",
        "7: training.max_seq_length is not an argument of SFTConfig",
        "  Its name is now max_length.",
        "8: training.learning_rate: wanted a number, found 'fast'",
    ] == lines[:9]
    assert "9: training.optim: wanted one of " in lines[9]
    assert "  Did you mean 'adamw_torch'?" == lines[10]
    assert lines[11].startswith("10: training.push_to_hub can't be set: iterations are experiments")
    assert [
        "  Remove the line.",
        "11: training.per_device_train_batch_size: wanted at least 1, found 0",
        "12: training.num_train_epochs: wanted more than 0, found 0",
    ] == lines[12:15]
    assert ["15: training.lr is not an argument of SFTConfig", "  Write learning_rate."] == lines[
        15:17
    ]
    assert "16: training.seed: wanted a whole number, found 'x'" == lines[17]
    assert "17: unknown key 'modle'" == lines[18]


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        ("lora: {r: 0}", "lora.r: wanted at least 1, found 0"),
        ("lora: {r: -3}", "lora.r: wanted at least 1, found -3"),
        ("lora: {lora_dropout: 1.5}", "lora.lora_dropout: wanted 0 to 1, found 1.5"),
        ("lora: {lora_dropout: -0.1}", "lora.lora_dropout: wanted 0 to 1, found -0.1"),
        ("training: {warmup_steps: -3}", "training.warmup_steps: wanted 0 or more, found -3"),
        ("training: {adam_beta2: 2}", "training.adam_beta2: wanted 0 to 1, found 2"),
        (
            "training: {torch_empty_cache_steps: 0}",
            "training.torch_empty_cache_steps: wanted at least 1, found 0",
        ),
        ("loop: {policy: [{lora.r: 0}]}", "lora.r: wanted at least 1, found 0"),
    ],
)
def test_a_value_out_of_bounds_is_found_when_the_file_is_read(
    read: Any, stated: str, wanted: str
) -> None:
    """Not by peft or transformers, one at a time, once the base is loaded."""
    assert f"s.ftloop.yaml:2: {wanted}" == refused(read, f"{DATA}{stated}\n")


@pytest.mark.parametrize(
    "stated",
    ["lora: {r: 1, lora_dropout: 0}", "lora: {lora_dropout: 1}", "training: {warmup_steps: 0.1}"],
)
def test_the_ends_of_the_bounds_are_taken(read: Any, stated: str) -> None:
    read(f"{DATA}{stated}\n")


def test_an_unknown_setting_of_a_range_is_one_mistake(read: Any) -> None:
    """A sampler's low and high share their name: it is told once."""
    text = "loop:\n  policy:\n    sampler: X\n    space:\n      lora.rank: {low: 1, high: 4}\n"
    assert 1 == refused(read, DATA + text).count("lora.rank is not an argument")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("training: {r: 8}", "It is an argument of LoraConfig: write it under lora."),
        ("lora: {learning_rate: 1}", "It is an argument of SFTConfig: write it under training."),
        ("lora: {model: gpt2}", "It is a key of the loop file: write it at the top, not under lo"),
        ("training: {patience: 3}", "It is a key of loop: write it there."),
        ("training: {Learning-Rate: 1}", "Did you mean 'learning_rate'?"),
        ("training: {tokenizer: x}", "It is a section of its own: tokenizer: {name: ...}."),
        ("training: {torch_dtype: x}", "training: {model_init_kwargs: {dtype: ...}}."),
    ],
)
def test_a_name_in_the_wrong_place(read: Any, section: str, message: str) -> None:
    """A name that belongs elsewhere is told where."""
    assert message in refused(read, DATA + section + "\n")


def test_a_key_of_our_own(read: Any) -> None:
    """lora.init_from is no argument of LoraConfig, and is left to its own check."""
    assert "best" == read(DATA + "lora: {init_from: best}\n").settings.lora["init_from"]


def test_the_value_of_a_credential_is_not_shown(read: Any) -> None:
    """Also a value of the wrong type may be a secret."""
    assert "hf_" not in refused(read, DATA + "training: {hub_token: [hf_abcdefghijklmnopqrstuv]}\n")


# which versions the table is of


def test_the_table_is_that_of_the_installed_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed file is what its script writes."""
    pytest.importorskip("trl")
    if any(_version(n) != v for n, v in known_arguments.VERSIONS.items()):
        pytest.skip("other versions are installed than the table is of")
    monkeypatch.setattr(importlib.metadata, "version", _version)
    script = Path(__file__).parents[2] / ".ci" / "known_arguments.py"
    made = runpy.run_path(str(script))["formatted"]()
    assert made == Path(known_arguments.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("trl", ["1.17.0", "2.0"])
def test_other_versions_are_asked_themselves(
    read: Any, monkeypatch: pytest.MonkeyPatch, trl: str
) -> None:
    """A name or type that the table does not know may be new: it is left to the real config."""
    installed(monkeypatch, trl=trl)
    config = read(DATA + "training: {brand_new: 1, warmup_steps: [1]}\n")
    assert {"brand_new": 1, "warmup_steps": [1]} == config.settings.training
    assert "lora.rnak" in refused(read, DATA + "lora: {rnak: 8}\n")  # peft is the table's


def test_a_patch_release_is_the_same_version(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch releases add no arguments."""
    major, minor, _ = known_arguments.VERSIONS["trl"].split(".")
    installed(monkeypatch, trl=f"{major}.{minor}.99")
    assert "training.brand_new is not" in refused(read, DATA + "training: {brand_new: 1}\n")


def test_without_the_libraries_only_what_never_works_is_refused(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A light install may judge the log of a newer trl; old names are gone from all of them."""
    installed(monkeypatch, trl=None, transformers=None, peft=None)
    assert {"brand_new": 1} == read(DATA + "training: {brand_new: 1}\n").settings.training
    told = refused(read, DATA + "training: {max_seq_length: 9, learning_rate: -1, do_eval: true}\n")
    assert 3 == told.count("s.ftloop.yaml:2: training.")


def test_no_torch_for_a_mistake(tmp_path: Path) -> None:
    """A loop file is checked without importing torch, trl, peft or numpy."""
    Path(tmp_path, "x.ftloop.yaml").write_text(DATA + "lora: {rank: 8}\ntraining: {lr: x}\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from pytest_ftloop.config.loop_config import read_loop_file\n"
        "try: read_loop_file(Path('x.ftloop.yaml'))\n"
        "except Exception as e: print(e)\n"
        "print(sorted({'torch', 'trl', 'peft', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "lora.rank is not an argument" in done.stdout
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


# the table against the real classes

VALUES: list[Any] = [0, 1, -1, 8, 0.5, 2.0, True, "x", "8", "0.5", "no", None]
VALUES += [[], ["a"], [1], [[1, 2]], {}, {"a": 1}, {"a": [1]}, {"a": True}, "epoch"]


@pytest.mark.parametrize("group", ["lora", "training"])
def test_the_table_refuses_nothing_that_the_real_config_takes(group: str) -> None:
    """For each argument and value: what the table refuses, the real class or its types refuse."""
    pytest.importorskip("trl")
    from peft import LoraConfig
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError
    from trl import SFTConfig

    config: Any = {"lora": LoraConfig, "training": SFTConfig}[group]
    base = {} if group == "lora" else {"output_dir": "x", "use_cpu": True, "bf16": False}
    real = get_type_hints(config)
    checks = dict.fromkeys(TABLES[group])
    for name in checks:
        if "number of iters" not in str(real[name]):
            arbitrary = ConfigDict(arbitrary_types_allowed=True)
            with suppress(PydanticUserError):  # a dataclass, which the loop sets itself
                checks[name] = TypeAdapter(real[name], config=arbitrary)
    wrongly = []
    for name, check in checks.items():
        for value in VALUES:
            stated = {name: value}
            if check is None or not [*mistakes(stated, group, TABLES[group], lambda _: None)]:
                continue
            if name in REFUSED or name in arguments.LIMITS[group]:
                continue
            try:
                check.validate_python(value)
                config(**{**base, **stated})
            except (ValidationError, ValueError, TypeError, AttributeError, KeyError, OSError):
                continue
            except Exception as error:
                if "valid" not in str(error):
                    raise
                continue
            wrongly.append((name, value))
    assert [] == [case for case in wrongly if case[0] not in CHECKED_LATER]


CHECKED_LATER = frozenset(
    {
        "log_level",
        "log_level_replica",
        "dataloader_multiprocessing_context",
        "ddp_backend",
        "loss_type",
        "packing_strategy",
        "train_sampling_strategy",
        "truncation_mode",
    }
)
"""Texts with choices, which trainers check when they read them, or the command line alone."""


def test_old_names_are_no_names() -> None:
    """What is called old or refused is not, or is, an argument of the table's versions."""
    for group, table in TABLES.items():
        assert set() == set(RENAMED[group]) & set(table)
        assert set(ALIASES[group]) | set(ALIASES[group].values()) <= set(table)
    assert set(REFUSED) <= set(TABLES["training"])


def test_new_names_are_names() -> None:
    """A cure that names an argument names one that exists."""
    known = {*TABLES["lora"], *TABLES["training"]}
    for cures in RENAMED.values():
        for cure in cures.values():
            if cure.startswith(("Its name is now ", "Write ")) and ":" not in cure:
                named = cure.removeprefix("Its name is now ").removeprefix("Write ").rstrip(".")
                assert named.split(" in ")[-1].removeprefix("it in ") in known, cure


def test_a_name_that_still_works() -> None:
    """An alias is accepted, and its new name told with the line."""
    stated = {"gradient_checkpointing": False}
    assert [] == [*mistakes(stated, "training", TABLES["training"], lambda _: None)]
    told = old_names(stated, "training", lambda key: Location("x.ftloop.yaml", 3))
    assert [
        "x.ftloop.yaml:3: training.gradient_checkpointing is an old name: write "
        "activation_checkpointing"
    ] == [*told]


def test_only_for_types() -> None:
    """The error's own type, so that a user sees no traceback."""
    wrong = mistakes({"r": "x"}, "lora", TABLES["lora"], lambda _: None)
    assert [ConfigError] == [type(error) for error in wrong]
