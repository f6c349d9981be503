"""Settings as JSON."""

from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch

from cosd_core.errors import ScheduleError, VerifierError
from cosd_core.generation.scheduling import Schedule
from cosd_core.models.base import BaseLanguageModel
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers import PanelVerifier, Verifier

Describe = Callable[[Any, str], Any]
"""Describes an object that JSON cannot hold; the second argument is its name."""


def to_jsonable(value: Any, describe: Describe | None = None) -> Any:
    """A setting as plain JSON, which a constructor accepts in place of the value.

    An object that JSON cannot describe becomes ``{"object": ...}`` with an id that is unique to the object in
    all processes, or what ``describe`` returns; constructors refuse that.
    """
    describe = describe or _by_id
    match value:
        case Enum():
            return to_jsonable(value.value, describe)
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [to_jsonable(each, describe) for each in value]
        case dict():
            return {str(key): to_jsonable(each, describe) for key, each in value.items()}
        case BaseLanguageModel():
            return describe(value, value.name)
        case PanelVerifier():
            return {**value.to_dict(), "members": to_jsonable(value.members, describe)}
        case Verifier() | Schedule() if not type(value).__module__.startswith("cosd_core."):
            # The to_dict of a user's own class may leave out settings.
            kind = VerifierError if isinstance(value, Verifier) else ScheduleError
            with guarded(kind, value):
                settings = value.to_dict()
            described = describe(value, "")
            return {**settings, **described} if isinstance(described, dict) else described
        case torch.dtype() | torch.device():
            return str(value).removeprefix("torch.")
    if hasattr(value, "to_dict"):
        return to_jsonable(value.to_dict(), describe)
    if hasattr(value, "__fspath__"):
        return str(value)
    return describe(value, type(value).__name__)


def _by_id(value: Any, name: str) -> dict[str, str]:
    return {"object": f"{name}#{_object_id(value)}" if name else _object_id(value)}


_object_ids: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _object_id(value: Any) -> str:
    try:
        return _object_ids.setdefault(value, uuid4().hex[:12])
    except TypeError:  # not hashable or not weakly referenceable: a new id each time, so no cache key matches
        return uuid4().hex[:12]
