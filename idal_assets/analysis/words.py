"""Numbers as people read them, the same in every table, sentence and figure."""

import math

import numpy as np

UNITS = {"h": 3600, "min": 60}


def signed(value: float, digits: int = 3) -> str:
    """A change with its sign, without a minus before a rounded zero; `not defined` for NaN.

    Args:
        value: The change.
        digits: Digits after the point.
    """
    # adding zero makes a plus of the minus before a rounded zero
    return "not defined" if math.isnan(value) else f"{np.round(value, digits) + 0.0:+.{digits}f}"


def interval(low: float, high: float, digits: int = 3) -> str:
    """An interval of a change; `none` where there is none."""
    return "none" if math.isnan(low) or math.isnan(high) else f"{signed(low, digits)} to {signed(high, digits)}"


def typeset(text: str) -> str:
    """A text of numbers with minus signs for the hyphens that people type."""
    return text.replace("-", "−")


def human_time(seconds: float) -> str:
    """Write a duration of 0 seconds or more in s, min or h with about two digits, or a dash if it is NaN."""
    if np.isnan(seconds):
        return "–"
    if seconds < 0.05:
        return "< 0.1 s"
    # 59.7 s is 60 s in whole seconds, and so 1.0 min.
    unit = next((x for x, size in UNITS.items() if round(seconds) >= size), "s")
    value = seconds / UNITS.get(unit, 1)
    return f"{value:.{1 if value < 9.95 else 0}f} {unit}"
