"""Regular expressions without look-around, which llguidance does not have."""

import re

_LOOKAROUND = re.compile(r"\(\?<?[=!]")
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()]|.", re.DOTALL)
"""An escaped character, a class, a parenthesis or any other character."""


def without_lookaround(pattern: str) -> str:
    """A pattern that matches at least the same texts: look-around only restricts what the rest matches."""
    if not _LOOKAROUND.search(pattern):
        return pattern
    kept: list[str] = []
    depth = at = 0  # the depth within a look-around group
    while at < len(pattern):
        part = _PART.match(pattern, at)
        assert part is not None, "any character is a part"
        if depth or (part[0] == "(" and _LOOKAROUND.match(pattern, at)):
            depth += {"(": 1, ")": -1}.get(part[0], 0)
        else:
            kept.append(part[0])
        at = part.end()
    return "".join(kept)
