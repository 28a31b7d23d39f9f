"""A scorer that was changed: pass rates are not compared, and every report says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from tests.loops import SAME, WORSE

if TYPE_CHECKING:
    from tests.cli.gate_cases import Gate
    from tests.loops import Loops

MODULE = (
    "import rules\ndef passes(output, expected, example): return rules.same(output, expected)\n"
)
RULES = "def same(output, expected): return output == expected\n"
SAID = "pass_rate is not compared: scoring changed"

CHANGES = {
    # files after the change, besides the loop file; and the scorer
    "scorer": ({}, "contains"),
    "module": ({"mine.py": MODULE.replace("rules.same(output, expected)", "True")}, "mine:passes"),
    "imported": ({"rules.py": RULES.replace("output == expected", "True")}, "mine:passes"),
}


def version(loops: Loops, rate: str, scorer: str, gates: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        loops.put(name, text)
    loops.write(rate=rate, gates=gates, more=f"scoring: {{scorer: '{scorer}'}}\n")
    loops.train()
    loops.commit()


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("metrics", ["[pass_rate]", "[pass_rate, eval_loss]"])
def test_a_lax_scorer(
    case: str, metrics: str, loops: Loops, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    """With worse settings it never passes: not comparable, or judged by the loss alone."""
    files, scorer = CHANGES[case]
    gates = f"{{regression: {{metrics: {metrics}}}}}"
    base = "exact" if case == "scorer" else "mine:passes"
    version(loops, SAME, base, gates, {"mine.py": MODULE, "rules.py": RULES})
    version(loops, WORSE, scorer, gates, files)
    alone = metrics == "[pass_rate]"
    kind = "not comparable" if alone else "regressed"
    code, out, _ = gate("HEAD~1")
    assert 1 == code
    assert f"regression: {kind} against HEAD~1 (" in out
    assert ("change the eval set or the scoring first" in " ".join(out.split())) is alone
    assert SAID in " ".join(out.split())
    assert "improved" not in out

    assert code == main(["ci", "--baseline", "HEAD~1"])
    summary = (loops.root / "ftloop-ci/summary.md").read_text(encoding="utf-8")
    assert SAID in summary
    report: Any = json.loads((loops.root / "ftloop-ci/report.json").read_text(encoding="utf-8"))
    (section,) = report["loops"]
    assert [0, 0] == [section[name]["total"] for name in ("fixed", "broken")]
    compared = {change["metric"] for change in section["verdicts"][0]["changes"]}
    assert not {name for name in compared if name.startswith("pass_rate")}
    capsys.readouterr()
    assert 0 == main(["diff", "HEAD~1"])
    said = capsys.readouterr().out
    assert SAID in " ".join(said.split())
    assert "fixed:" not in said


def test_gate_on_the_loss(loops: Loops, gate: Gate) -> None:
    """A threshold may hold by the new scoring alone: that it changed is said in any case."""
    gates = "{pass_rate: '>= 50%', regression: {metrics: [eval_loss]}}"
    version(loops, SAME, "exact", gates, {})
    version(loops, SAME, "contains", gates, {})
    code, out, _ = gate("HEAD~1")
    assert 0 == code
    assert "scoring changed: pass rates before and now can't be compared" in " ".join(out.split())


def test_scoring_alone_is_changed(loops: Loops, gate: Gate) -> None:
    """The model is the same, so that nothing is left to compare does not fail."""
    gates = "{regression: {metrics: [pass_rate]}}"
    version(loops, SAME, "exact", gates, {})
    version(loops, SAME, "contains", gates, {})
    code, out, _ = gate("HEAD~1")
    assert 0 == code
    assert SAID in " ".join(out.split())


def test_a_helper_alone_is_changed(loops: Loops, gate: Gate) -> None:
    """Then the log is out of date, and the reason names the scorer."""
    version(loops, SAME, "mine:passes", "{regression: {}}", {"mine.py": MODULE, "rules.py": RULES})
    assert 0 == gate()[0]
    loops.put("rules.py", RULES.replace("output == expected", "True"))
    code, _, err = gate()
    assert 3 == code
    assert "scoring: the code of mine:passes, or a local module that it imports, changed" in err
