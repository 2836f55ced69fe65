"""Numbers that users give, held to their bounds."""

from __future__ import annotations

import math
import operator
from typing import Any

from .errors import OptionError


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise OptionError unless it is None or a whole number within the bounds."""
    if value is None:
        return
    try:
        number = operator.index(value)
        fits = not isinstance(value, bool) and number >= least and (most is None or number <= most)
    except TypeError:
        fits = False
    if not fits:
        bounds = f"from {least} up" if most is None else f"from {least} to {most}"
        raise OptionError(f"{name} must be a whole number {bounds}, not {value!r}.")


def check_number(
    name: str, value: Any, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """The value as a float; raises OptionError unless it is a number, of whatever type, within the bounds."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, str) or not (math.isfinite(number) and least <= number <= most and number > above):
        bounds = [f"from {least}"] * (least > -math.inf) + [f"above {above}"] * (above > -math.inf)
        bounds += [f"up to {most}"] * (most < math.inf)
        raise OptionError(f"{name} must be a number {' and '.join(bounds)}, not {value!r}.")
    return number
