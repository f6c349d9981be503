"""The values of ``format`` that have an effect; all others are annotations (JSON Schema 2020-12, 7.2.1).

===========  ========  =======
format       enforced  checked
===========  ========  =======
date         yes       yes
date-time    yes       yes
time         yes       yes
email        yes       yes
ipv4         yes       yes
ipv6         yes       yes
uuid         yes       yes
duration     yes       no
hostname     yes       no
uri          yes       no
===========  ========  =======

Enforced: the grammar admits strings of this form only. Checked: a finished answer is checked, so that the
31st of February is reported.
"""

from datetime import datetime
from functools import cache
from typing import Any

ENFORCED_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
CHECKED_FORMATS = ("date", "email", "ipv4", "ipv6", "uuid")
"""Those that jsonschema checks without optional packages; ``date-time`` and ``time`` are added here."""


@cache
def format_checker() -> Any:
    """Jsonschema's checker of the formats above: the same ones whatever packages are installed."""
    from jsonschema import FormatChecker  # here: most generations need no schema

    checker = FormatChecker(CHECKED_FORMATS)
    checker.checks("date-time", raises=ValueError)(lambda value: _is_time_of_day(value, ""))
    checker.checks("time", raises=ValueError)(lambda value: _is_time_of_day(value, "2000-01-01T"))
    return checker


def _is_time_of_day(value: object, date: str) -> bool:
    if not isinstance(value, str):  # formats apply to strings alone
        return True
    return datetime.fromisoformat(f"{date}{value}".upper()).tzinfo is not None
