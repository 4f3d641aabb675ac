"""Quantities such as "500m" and "1Gi".

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from fractions import Fraction

_WRITTEN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?")
_UNITS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", 1)},
    **{unit + "i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", 1)},
}


def quantity(written: object) -> Fraction | None:
    """The number; None when it is not a quantity."""
    found = _WRITTEN.fullmatch(str(written))
    if found is None:
        return None
    number, exponent, unit = found.groups()
    return Fraction(number + (exponent or "")) * _UNITS.get(unit, Fraction(1))
