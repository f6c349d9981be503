"""What is compared: ways in which one pair of models, or one model of it, writes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import EvaluationFileError, InvalidOptionError, quoted
from cosd_core.frontend.settings import VERIFIER_OF_SETTING, Settings, assistant_sources, model_names
from cosd_core.frontend.settings_file import read_settings
from cosd_core.verifiers import AverageVerifier, TreeVerifier, Verifier

SINGLES = ("draft", "assistant")
"""The methods by which one model writes alone."""

METHODS = (*SINGLES, "speculative", "average", "rule", "tree")
"""Every method by its verifier's name."""

_SWAPPED = ", roles swapped"
_SYMMETRIC = (*SINGLES, AverageVerifier.name)
"""Verifiers that give nothing new when the models change roles; an average of w becomes that of 1 - w."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to write.

    Attributes:
        name: What reports call it.
        parts: How the models work together: what :meth:`Settings.method` says.
        swapped: Whether the assistant drafts and the draft assists.
        assistant: The number of the only assistant that takes part; None: all do.
    """

    name: str
    parts: Mapping[str, Any]
    swapped: bool = False
    assistant: int | None = None

    @property
    def verifier(self) -> Verifier:
        """Who judges."""
        verifier: Verifier = self.parts["verifier"]
        return verifier

    @property
    def single(self) -> str | None:
        """Which model writes alone, in the roles of the models as they were given; None where several do."""
        if self.verifier.name not in SINGLES:
            return None
        if self.assistant is not None:
            return _single(self.assistant)
        if self.verifier.name == SINGLES[1] and len(self.parts.get("calibration", ())) > 2:
            return None  # whichever assistant is surest
        return SINGLES[(self.verifier.name == SINGLES[1]) ^ self.swapped]

    def decoder(self, pair: CoSDDecoder) -> CoSDDecoder:
        """A decoder over the pair's loaded models that works this way.

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
        """What shapes its answers and their cost, as plain JSON values."""
        parts = {name: value for name, value in self.parts.items() if name != "verifier"}
        verifier = self.verifier.to_dict()
        for each in (verifier, *verifier.get("members", ())):
            each.pop("about", None)  # what is known of a tree changes nothing of what it does
        plain = {
            name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in parts.items()
        }
        only = {} if self.assistant is None else {"assistant": self.assistant}
        return {
            "verifier": verifier,
            "swapped": self.swapped,
            **only,
            **json.loads(json.dumps(plain, default=str)),
        }


def make_methods(
    names: Sequence[str], settings: Mapping[str, Any], *, both_roles: bool = False
) -> list[Method]:
    """Methods by name, with the settings of each. Of several assistants each is also asked alone.

    Args:
        names: Of :data:`METHODS`.
        settings: Fields of :class:`Settings` for all methods. Those of one verifier (``alpha``, ``weight``,
            ...) are read by that method alone.
        both_roles: Whether a method is also tried with the models' roles swapped, where that is something
            else.

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
        own = {key: value for key, value in settings.items() if VERIFIER_OF_SETTING.get(key, name) == name}
        filled = Settings(**own, verifier=name)
        method = Method(_title(filled), filled.method())
        several = len(filled.assistants) > 1
        methods += _every_assistant(method) if several and name == SINGLES[1] else [method]
    return list(_in_both_roles(methods)) if both_roles else methods


def possible_methods(settings: Mapping[str, Any], *, shared_vocabulary: bool = True) -> list[str]:
    """Those of :data:`METHODS` that are defined for such models and have all that they need."""
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
        pair: The names of the draft and its assistants. A file that names two models the other way round
            swaps their roles.

    Raises:
        EvaluationFileError: As :func:`read_settings`, or the file names other models.
        InvalidOptionError: Settings do not go together.
    """
    given = read_settings(path)
    named = model_names(given)
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
    """The assistants one by one: the surest of them is another one at every token, and no model alone."""
    draft, *others = method.parts["calibration"]
    for at, heat in enumerate(others):
        yield Method(_single(at), {**method.parts, "calibration": (draft, heat)}, assistant=at)


def _in_both_roles(methods: Sequence[Method]) -> Iterator[Method]:
    for method in methods:
        yield method
        if method.verifier.name not in _SYMMETRIC:
            calibration = method.parts["calibration"]  # the draft's comes first
            parts = {**method.parts, "calibration": calibration[1:] + calibration[:1]}
            yield replace(method, name=method.name + _SWAPPED, parts=parts, swapped=True)
