"""TORCH: hide what the libraries print."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import datasets
import transformers

NOISY = ("trl", "bitsandbytes", "peft", "accelerate", "huggingface_hub", "httpx", "httpx2")
"""Loggers that print hints and retries. Nothing is lost without them: errors are raised as well."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' progress bars, hints and deprecation warnings."""
    verbosity = transformers.logging.get_verbosity()
    hf_bars = transformers.logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    loggers = {name: logging.getLogger(name).level for name in NOISY}
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if hf_bars:
            transformers.logging.enable_progress_bar()
        if not data_bars:
            datasets.enable_progress_bars()
        for name, level in loggers.items():
            logging.getLogger(name).setLevel(level)
