"""A setting as JSON."""

from enum import Enum
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch

from cosd_core.generation.scheduling import Schedule
from cosd_core.grammar import Grammar
from cosd_core.models.base import BaseLanguageModel
from cosd_core.verifiers import PanelVerifier, Verifier


def plain(value: Any) -> Any:
    """A setting as JSON, which a constructor takes again.

    What has no name of its own is told apart by a mark for this process; no constructor takes that.
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [plain(each) for each in value]
        case dict():
            return {str(key): plain(each) for key, each in value.items()}
        case BaseLanguageModel():
            return {"object": f"{value.name}#{_mark(value)}"}
        case PanelVerifier():
            return {**value.to_dict(), "members": plain(value.members)}
        case Verifier() | Schedule() if type(value).__module__.startswith("cosd_core."):
            return value.to_dict()
        case Verifier() | Schedule():  # what a user's own says of itself may leave out its settings
            return {**value.to_dict(), "object": _mark(value)}
        case Grammar():
            return value.to_dict()
        case torch.dtype() | torch.device():
            return str(value).removeprefix("torch.")
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if hasattr(value, "__fspath__"):
        return str(value)
    return {"object": f"{type(value).__name__}#{_mark(value)}"}


_marks: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _mark(value: Any) -> str:
    """The same for the same object, different for any other, in this process and all others."""
    try:
        return _marks.setdefault(value, uuid4().hex[:12])
    except TypeError:  # no hash or no weak reference: never the same again, so never found in a cache
        return uuid4().hex[:12]
