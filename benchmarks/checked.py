"""A check for timed processes: they fail where one of the heavy libraries was imported."""

from __future__ import annotations

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "pandas", "numpy", "scipy")

CHECK = f"""\
import atexit, os, sys

def check():
    found = [name for name in {HEAVY!r} if name in sys.modules]
    if found:
        print("imported:", *found, flush=True)
        os._exit(70)

atexit.register(check)
"""
"""The text of a `sitecustomize.py`. It looks when the process ends, so it costs nothing before."""
