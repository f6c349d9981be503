"""The methods of a comparison: decoders over the same models, or one of the models alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import EvaluationFileError, InvalidOptionError, quoted
from cosd_core.frontend.model_names import assistant_sources, model_sources
from cosd_core.frontend.settings import VERIFIER_OF_SETTING, Settings
from cosd_core.frontend.settings_file import read_settings
from cosd_core.verifiers import AverageVerifier, TreeVerifier, Verifier

SINGLES = ("draft", "assistant")
"""The methods of one model alone."""

METHODS = (*SINGLES, "speculative", "average", "rule", "tree")
"""Every method by its verifier's name."""

_SWAPPED = ", roles swapped"
_IN_ONE_ROLE = (*SINGLES, AverageVerifier.name, TreeVerifier.name)
"""Verifiers that are not tried with swapped roles: an average of w becomes that of 1 - w, and a tree was
learned for one order of the models."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a comparison.

    Attributes:
        name: Its name in reports.
        parts: The arguments of :class:`CoSDDecoder` other than the models, as :meth:`Settings.method` returns
            them.
        swapped: Whether the assistant drafts and the draft assists.
        assistant: The number of the only assistant that takes part; None: all do.
    """

    name: str
    parts: Mapping[str, Any]
    swapped: bool = False
    assistant: int | None = None

    @property
    def verifier(self) -> Verifier:
        """Its verifier."""
        verifier: Verifier = self.parts["verifier"]
        return verifier

    @property
    def single(self) -> str | None:
        """The name of the only model, by its role before swapping; None where several models write."""
        if self.verifier.name not in SINGLES:
            return None
        if self.assistant is not None:
            return _single(self.assistant)
        if self.verifier.name == SINGLES[1] and len(self.parts.get("calibration", ())) > 2:
            return None  # the most confident assistant varies by token
        return SINGLES[(self.verifier.name == SINGLES[1]) ^ self.swapped]

    def decoder(self, pair: CoSDDecoder) -> CoSDDecoder:
        """A decoder with this method over the pair's loaded models.

        Raises:
            InvalidOptionError: The roles cannot be swapped, or the method is not defined for so many models.
        """
        if self.swapped and len(pair.assistants) > 1:
            raise InvalidOptionError(
                f"{self.name}: roles can be swapped between two models, not {1 + len(pair.assistants)}"
            )
        models = (*pair.assistants, pair.draft) if self.swapped else pair.models
        assistants = models[1:] if self.assistant is None else [models[1 + self.assistant]]
        return CoSDDecoder(models[0], assistants, **self.parts)

    def describe(self) -> dict[str, Any]:
        """Everything that its answers and their cost depend on, as plain JSON values."""
        parts = {name: value for name, value in self.parts.items() if name != "verifier"}
        verifier = self.verifier.to_dict()
        for each in (verifier, *verifier.get("members", ())):
            each.pop("about", None)  # it changes no decision of a tree
        plain = {name: each.to_dict() if hasattr(each, "to_dict") else each for name, each in parts.items()}
        only = {} if self.assistant is None else {"assistant": self.assistant}
        values = json.loads(json.dumps(plain, default=str))
        return {"verifier": verifier, "swapped": self.swapped, **only, **values}


def make_methods(
    names: Sequence[str], settings: Mapping[str, Any], *, both_roles: bool = False
) -> list[Method]:
    """Methods by name, with the settings of each. Several assistants are also methods one by one.

    Args:
        names: Of :data:`METHODS`.
        settings: Fields of :class:`Settings` for all methods. Those of one verifier (``alpha``, ``weight``,
            ...) apply to that method alone.
        both_roles: Whether to add every method with the models' roles swapped, where that differs. A tree
            is learned for one order of the models: another tree in a settings file is a method of its own.

    Raises:
        InvalidOptionError: There is no method of that name, a setting is wrong, or a tree has no file.
        VerifierFileError: A tree's file cannot be read.
    """
    methods: list[Method] = []
    for name in dict.fromkeys(names):
        if name not in METHODS:
            raise InvalidOptionError(f"method={quoted(name)} should be one of {', '.join(METHODS)}")
        if name == TreeVerifier.name and settings.get("tree_path") is None:
            raise InvalidOptionError('method="tree" needs tree_path: a file that TreeVerifier.save wrote')
        applying = {
            key: value for key, value in settings.items() if VERIFIER_OF_SETTING.get(key, name) == name
        }
        filled = Settings(**applying, verifier=name)
        method = Method(_title(filled), filled.method())
        several = len(filled.assistants) > 1
        methods += _every_assistant(method) if several and name == SINGLES[1] else [method]
    return list(_in_both_roles(methods)) if both_roles else methods


def possible_methods(settings: Mapping[str, Any], *, shared_vocabulary: bool = True) -> list[str]:
    """Those of :data:`METHODS` that are defined for these models and whose settings are complete."""
    impossible = {"speculative"} if len(assistant_sources(settings)) > 1 else set()
    if not shared_vocabulary:
        impossible |= {"speculative", "average"}
    if "tree_path" not in settings:
        impossible.add(TreeVerifier.name)
    return [name for name in METHODS if name not in impossible]


def read_method(path: str | Path, settings: Mapping[str, Any], *, pair: Sequence[str] = ()) -> Method:
    """A method from a settings file: a JSON object with fields of :class:`Settings`.

    Args:
        path: The file.
        settings: Fields that the file need not hold: the models, and how they are loaded.
        pair: The sources, or names, of the draft and its assistants. A file with two models in the opposite
            order swaps their roles.

    Raises:
        EvaluationFileError: As :func:`read_settings`, or the file names other models.
        InvalidOptionError: Settings do not go together.
    """
    given = read_settings(path)
    named = model_sources(given)
    swapped = bool(named) and named != list(map(str, pair))
    if swapped and (len(pair) > 2 or sorted(named) != sorted(map(str, pair))):
        raise EvaluationFileError(
            f"settings {quoted(str(path))} are for the models {quoted(named)}, not for {quoted(list(pair))}"
        )
    base = {name: value for name, value in settings.items() if name not in VERIFIER_OF_SETTING}
    filled = Settings(**{**base, **given})
    return Method(Path(path).stem + (_SWAPPED if swapped else ""), filled.method(), swapped)


def _title(settings: Settings) -> str:
    match settings.verifier:
        case "rule":
            return f"rule ({settings.alpha:g}, {settings.beta:g})"
        case "average":
            return f"average ({settings.weight:g})"
        case "tree":
            paths = settings.tree_path if isinstance(settings.tree_path, list) else [settings.tree_path]
            return f"tree ({', '.join(Path(str(path)).stem for path in paths)})"
    return str(settings.verifier)


def _single(assistant: int) -> str:
    return f"{SINGLES[1]} {assistant + 1}"


def _every_assistant(method: Method) -> Iterator[Method]:
    """The assistants one by one. All of them together are no baseline: the most confident varies by token."""
    draft, *others = method.parts["calibration"]
    for index, temperature in enumerate(others):
        parts = {**method.parts, "calibration": (draft, temperature)}
        yield Method(_single(index), parts, assistant=index)


def _in_both_roles(methods: Sequence[Method]) -> Iterator[Method]:
    for method in methods:
        yield method
        if method.verifier.name not in _IN_ONE_ROLE:
            calibration = method.parts["calibration"]  # the draft's comes first
            parts = {**method.parts, "calibration": calibration[1:] + calibration[:1]}
            yield replace(method, name=method.name + _SWAPPED, parts=parts, swapped=True)
