"""Settings as JSON."""

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


def to_jsonable(value: Any) -> Any:
    """A setting as plain JSON, which a constructor accepts in place of the value.

    An object that JSON cannot describe becomes ``{"object": ...}`` with an id that is unique to the object in
    all processes; constructors refuse that.
    """
    match value:
        case Enum():
            return to_jsonable(value.value)
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [to_jsonable(each) for each in value]
        case dict():
            return {str(key): to_jsonable(each) for key, each in value.items()}
        case BaseLanguageModel():
            return {"object": f"{value.name}#{_object_id(value)}"}
        case PanelVerifier():
            return {**value.to_dict(), "members": to_jsonable(value.members)}
        case Verifier() | Schedule() if not type(value).__module__.startswith("cosd_core."):
            # The to_dict of a user's own class may leave out settings.
            kind = VerifierError if isinstance(value, Verifier) else ScheduleError
            with guarded(kind, value):
                return {**value.to_dict(), "object": _object_id(value)}
        case torch.dtype() | torch.device():
            return str(value).removeprefix("torch.")
    if hasattr(value, "to_dict"):
        return to_jsonable(value.to_dict())
    if hasattr(value, "__fspath__"):
        return str(value)
    return {"object": f"{type(value).__name__}#{_object_id(value)}"}


_object_ids: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _object_id(value: Any) -> str:
    try:
        return _object_ids.setdefault(value, uuid4().hex[:12])
    except TypeError:  # not hashable or not weakly referenceable: a new id each time, so no cache key matches
        return uuid4().hex[:12]
