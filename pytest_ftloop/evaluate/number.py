"""The number that a text ends with, and whether it is near another."""

from __future__ import annotations

import re
from decimal import Context, Decimal, localcontext

_NUMBER = re.compile(
    r"""
    (?P<sign>(?<![A-Za-z0-9_.)\]])[-+\u2212])?   # no sign: the dashes of 10-3 and 2019-2020
    [$\u20ac\u00a3\u00a5]?
    (?<![A-Za-z0-9_.])                           # no number: H2O, the rest of 1.2.3
    (?:(?P<groups>[0-9]{1,3}(?P<apart>[,'\u2019\u00a0\u202f])[0-9]{3}(?:(?P=apart)[0-9]{3})*(?![0-9]))
      |(?P<whole>[0-9]+)
      |(?=\.[0-9]))
    (?P<part>\.[0-9]+)?
    (?P<power>[eE][-+]?[0-9]{1,4}(?![0-9]))?
    (?P<percent>\ ?%)?
    """,
    re.VERBOSE,
)

_CONTEXT = Context(prec=50, Emax=10**6, Emin=-(10**6))
"""More digits than any measured figure has; exponents of four digits can't overflow it."""


def last_number(text: str) -> Decimal | None:
    """The last number of a text: `= 1,234.5` -> 1234.5, `-2e-3`, `12%` -> 0.12. None without one.

    Of thousands, groups of three are separated by `,`, an apostrophe or a no-break space; the
    decimal sign is the point. A percentage is its hundredth. Units and currencies may touch it.
    """
    found = None
    for match in _NUMBER.finditer(text):
        found = match
    if found is None:
        return None
    groups = found["groups"]
    whole = groups.replace(found["apart"], "") if groups else found["whole"] or "0"
    sign = "" if found["sign"] in (None, "+") else "-"
    with localcontext(_CONTEXT):
        value = Decimal(f"{sign}{whole}{found['part'] or ''}{found['power'] or ''}")
        return value / 100 if found["percent"] else value


def is_near(found: Decimal, wanted: Decimal, absolute: Decimal, relative: Decimal) -> bool:
    """Whether two numbers differ by at most `absolute`, or by `relative` times the wanted one."""
    if found == wanted:
        return True
    with localcontext(_CONTEXT):
        return abs(found - wanted) <= max(absolute, relative * abs(wanted))
