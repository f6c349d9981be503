"""Models that were loaded by name, so that equal names share one copy of the weights."""

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from cosd_core.utils import Lock

_Model = TypeVar("_Model")


class ModelRegistry(Generic[_Model]):
    """Loaded models by a key; a model that nothing else refers to is freed.

    Attributes:
        models: The models that are in use.
        lock: Held while a key is looked up for the first time.
    """

    def __init__(self) -> None:
        self.models: WeakValueDictionary[str, _Model] = WeakValueDictionary()
        self.lock = Lock()
        self._loading: dict[str, Lock] = {}

    def get_or_load(self, key: str, load: Callable[[], _Model]) -> _Model:
        """The model of a key. Calls with one key at the same time load it once; other keys do not wait."""
        with self.lock:
            loading = self._loading.setdefault(key, Lock())
        with loading:
            model = self.models.get(key)
            if model is None:
                model = self.models[key] = load()
            return model
