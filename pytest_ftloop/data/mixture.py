"""Take the rows of several sources, each as often as its weight says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from pytest_ftloop.config.sources import Mixture
from pytest_ftloop.core.errors import Location
from pytest_ftloop.data.sources import Row, read_rows


def mixed_rows(mixture: Mixture, role: str, folder: Path, where: Location | None) -> Iterator[Row]:
    """The rows of each source in turn, in the source's order.

    With the weight 2.5 a source gives its rows twice, and then a random half of them: the same half
    in each run. trl shuffles the whole.
    """
    for source, weight in mixture.parts:
        rows = list(read_rows(source, role, folder, where))
        whole, rest = divmod(weight, 1)
        for _ in range(int(whole)):
            yield from rows
        chosen = random.Random(0).sample(range(len(rows)), round(rest * len(rows)))
        yield from (rows[i] for i in sorted(chosen))
