"""Plans that were found earlier, in files: they need a check where others need a search.

A plan is never used because a file says so: it is checked on the model first. So a file that is old, damaged
or somebody else's costs time at most.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cosd_core._version import __version__
from cosd_core.models.comparison import ProbedModel
from cosd_core.models.fingerprint import config_digest
from cosd_core.models.forward import Plan, input_device

FOLDER_VARIABLE = "COSD_CACHE_DIR"
"""The environment variable that names the folder of cosd's own files; if it is empty, none are kept."""

_PLAN = TypeAdapter(Plan)
_LARGEST = 4096
"""Bytes of a file that is read."""

_log = logging.getLogger("cosd.models")


def cache_folder() -> Path | None:
    """The folder of files that save time: ``COSD_CACHE_DIR``, or ``cosd`` in the user's cache folder.

    None if the variable is set to nothing, or if the user has no home.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "cosd"
    except RuntimeError:
        return None


class RememberedPlan:
    """The file of the plan of one configuration.

    Equal configurations are those that agree in class, values, number types, attention, device, adapters,
    tolerance and the versions of cosd, torch and transformers.

    Attributes:
        file: Its path; None if nothing is kept, or if the model has code that is not transformers' own, which
            no version names.
    """

    def __init__(self, probed: ProbedModel) -> None:
        folder = cache_folder()
        known = type(probed.model).__module__.startswith("transformers.")
        self.file = folder / "plans" / f"{_key(probed)}.json" if folder and known else None

    def read(self) -> Plan | None:
        """The plan; None if there is none, or if the file is not readable or damaged."""
        if self.file is None:
            return None
        try:
            with self.file.open("rb") as file:
                return _PLAN.validate_json(file.read(_LARGEST), strict=True)
        except (OSError, ValidationError):
            return None

    def write(self, plan: Plan) -> None:
        """Keep a plan. Readers see the old file or the new one; a folder that takes none is no error."""
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self.file.parent, suffix=".partial")
            try:
                with open(handle, "w", encoding="utf-8") as out:
                    json.dump(asdict(plan), out)
                os.replace(partial, self.file)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(partial)
                raise
        except OSError as error:
            _log.debug("the plan of a model is not kept: %s", error)


def _key(probed: ProbedModel) -> str:
    """A hash of everything but the weights that may decide under which plan a model runs."""
    model: Any = probed.model
    config = model.config
    attention = [getattr(each, "_attn_implementation", None) for each in (config, config.get_text_config())]
    facts = [
        __version__, version("torch"), version("transformers"), sys.version_info[:2],
        f"{type(model).__module__}.{type(model).__qualname__}", config_digest(config), attention,
        sorted({str(parameter.dtype) for parameter in model.parameters()}), input_device(model).type,
        sorted({f"{type(module).__module__}.{type(module).__qualname__}" for module in model.modules()}),
        probed.tolerance,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]
