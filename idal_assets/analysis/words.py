"""Numbers as people read them, the same in every table, sentence and figure."""

import math

import numpy as np


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
