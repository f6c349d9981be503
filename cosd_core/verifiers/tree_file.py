"""The file of a learned tree: data, never code. Every node is checked when it is read.

::

    {"format": "cosd-tree", "version": 1, "features": ["p", "q"],
     "nodes": [{"feature": "q", "threshold": 0.83, "left": 1, "right": 2},
               {"replace": false}, {"replace": true}],
     "about": {"pair": ["org/a", "org/b"], "calibration": null}}

Node 0 is the root; a position goes left where its feature is at most the threshold. ``about`` holds text and
numbers for people, and the temperatures of the confidences that the tree was trained on.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cosd_core.errors import InvalidOptionError, VerifierFileError, quoted
from cosd_core.verifiers.nodes import FEATURES

T = TypeVar("T")

_FORMAT, _VERSION = "cosd-tree", 1
_MOST_BYTES = 16 * 2**20


def write_tree(path: str | Path, tree: Mapping[str, Any]) -> None:
    """Write the nodes and ``about`` of a tree; errors as :meth:`TreeVerifier.save`."""
    header = {"format": _FORMAT, "version": _VERSION, "features": [*FEATURES]}
    content = {**header, "nodes": tree["nodes"], "about": tree["about"]}
    try:
        Path(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except (OSError, TypeError, ValueError) as error:
        raise VerifierFileError(f"cannot write tree file {quoted(path)}: {quoted(error)}") from error


def read_tree(path: str | Path, make: Callable[[list[Any], dict[str, Any]], T]) -> T:
    """Read a file and make a tree from its nodes and ``about``; errors as :meth:`TreeVerifier.load`."""
    try:
        content = json.loads(_read_bytes(path))
    except (OSError, TypeError, UnicodeEncodeError) as error:  # also names that are no path
        raise VerifierFileError(f"cannot read tree file {quoted(path)}: {quoted(error)}") from error
    except (ValueError, RecursionError) as error:
        raise VerifierFileError(f"tree file {quoted(path)} is not JSON: {quoted(error)}") from error
    try:
        _check_content(content)
        return make(content["nodes"], content.get("about", {}))
    except (InvalidOptionError, VerifierFileError) as error:
        raise VerifierFileError(f"tree file {quoted(path)}: {error}") from error


def _read_bytes(path: str | Path) -> bytes:
    if not Path(path).is_file():
        raise FileNotFoundError("there is no such file")
    with Path(path).open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise OSError(f"it has more than {_MOST_BYTES} bytes")
    return content


def _check_content(content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise VerifierFileError(f'it should be an object with "format": "{_FORMAT}"')
    if type(content.get("version")) is not int or content["version"] != _VERSION:
        raise VerifierFileError(
            f"version {quoted(content.get('version'))} is not known; this cosd reads {_VERSION}"
        )
    if content.get("features") != [*FEATURES]:
        raise VerifierFileError(f"features {quoted(content.get('features'))} should be {[*FEATURES]}")
    if unknown := set(content) - {"format", "version", "features", "nodes", "about"}:
        raise VerifierFileError(f"unknown entries {quoted(sorted(unknown))}")
    if not isinstance(content.get("about", {}), dict):
        raise VerifierFileError(f"about should be an object, not {quoted(content['about'])}")
    if not isinstance(content.get("nodes"), list):
        raise VerifierFileError(f"nodes should be a list, not {quoted(content.get('nodes'))}")
