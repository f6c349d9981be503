"""Cases of large grids: a few of them for every run, the others for ``make test-exhaustive`` alone."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet

exhaustive = pytest.mark.exhaustive
"""Of a test or a parameter: only ``make test-exhaustive`` runs it."""


def every(step: int, values: Iterable[Any]) -> list[ParameterSet]:
    """The values of one parameter; all but the first and each ``step``-th after it are exhaustive."""
    return [_case((value,), is_ordinary=at % step == 0) for at, value in enumerate(values)]


def but_for(ordinary: Collection[Any], values: Iterable[Any]) -> list[ParameterSet]:
    """The values of one parameter; all but these ordinary ones are exhaustive."""
    return [_case((value,), is_ordinary=value in ordinary) for value in values]


def covering(grid: Iterable[tuple[Any, ...]]) -> list[ParameterSet]:
    """The cases of several parameters; all but a few are exhaustive, and any value is in one of those few."""
    cases = list(grid)
    values = [{f"{place}: {value!r}" for place, value in enumerate(case)} for case in cases]
    missing = set[str]().union(*values)
    ordinary: set[int] = set()
    while missing:
        richest = max(range(len(cases)), key=lambda at: len(values[at] & missing))
        ordinary.add(richest)
        missing -= values[richest]
    return [_case(case, is_ordinary=at in ordinary) for at, case in enumerate(cases)]


def _case(values: tuple[Any, ...], *, is_ordinary: bool) -> ParameterSet:
    return pytest.param(*values, marks=() if is_ordinary else exhaustive)
