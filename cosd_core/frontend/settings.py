"""Every constructor parameter of the wrappers and flag of the command line, once, and what they build."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from cosd_core.decoder import CoSDDecoder, ModelSource
from cosd_core.errors import CoSDError, EvaluationFileError, InvalidOptionError, VerifierFileError, quoted
from cosd_core.generation.scheduling import Schedule, make_schedule
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.metadata import known_context_length, known_to_chat
from cosd_core.models.naming import with_adapter, without_adapter
from cosd_core.options import GenerationOptions, LoadingOptions, check_adapters
from cosd_core.verifiers import (
    AverageVerifier,
    RuleVerifier,
    TreeVerifier,
    Verifier,
    calibration_of,
    make_verifier,
)

OF_ONE_METHOD = {"alpha": "rule", "beta": "rule", "tree_path": "tree", "weight": "average"}
"""Which verifier a setting is for, and so which method."""


def _as_source(value: object) -> object:
    if isinstance(value, Mapping) and "object" in value:
        raise ValueError("was a loaded model, which no text can hold: give its hub id or path, or the model")
    return value


def _as_verifier(value: object) -> object:
    return make_verifier(value) if isinstance(value, (Mapping, list, tuple)) else value


def _as_schedule(value: object) -> object:
    return make_schedule(value) if isinstance(value, Mapping) else value


def _as_numbers(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Source = Annotated[ModelSource, BeforeValidator(_as_source)]

if TYPE_CHECKING:  # the types that constructors accept, as in cosd_core/options.py
    Temperatures = Sequence[float] | None
    VerifierLike = str | Verifier | Sequence[str | Verifier]
else:
    Temperatures = Annotated[tuple[float, ...] | None, BeforeValidator(_as_numbers)]
    VerifierLike = Annotated[str | Verifier | list[str | Verifier], BeforeValidator(_as_verifier)]


MODELS = ("draft_model", "assistant_model", "draft_adapter", "assistant_adapter")
"""The settings that say which models these are."""

METHOD = (
    *("verifier", "alpha", "beta", "tree_path", "weight", "calibration"),
    *("schedule", "draft_length", "batch_size"),
)
"""The settings that say how models work together."""


class Settings(LoadingOptions, GenerationOptions):
    """Which models write together, who judges, how models are loaded, and how texts are written.

    Raises:
        InvalidOptionError: A name is unknown, a value wrong, or a setting given that the verifier has not.
    """

    draft_model: Source = Field(description="The model that proposes: hub id or path.")
    assistant_model: Source | list[Source] = Field(
        description="The model that judges and corrects: hub id or path. Several are possible."
    )
    draft_adapter: str | None = Field(
        default=None, description="A PEFT adapter (LoRA and its like) over the draft: hub id or path."
    )
    assistant_adapter: str | list[str | None] | None = Field(
        default=None, description="The same for the assistant; for several, one each, empty for none."
    )
    verifier: VerifierLike = Field(
        default="rule",
        description="rule, tree, draft, assistant, speculative or average. Several: one per assistant.",
    )
    alpha: float = Field(default=0.5, description="rule: below this confidence the draft counts as unsure.")
    beta: float = Field(
        default=0.5, description="rule: how sure the assistant must be, relative to the draft."
    )
    tree_path: str | list[str] | None = Field(
        default=None, description="tree: the file of one. Several: one per assistant."
    )
    weight: float = Field(default=0.5, description="average: the draft's share of the mixture.")
    schedule: Annotated[str | Schedule, BeforeValidator(_as_schedule)] = Field(
        default="adaptive", description="adaptive asks only where it matters; fixed is the paper's loop."
    )
    draft_length: int = Field(
        default=8, ge=1, description="K: the most tokens drafted before they are judged."
    )
    batch_size: int = Field(default=32, ge=1, description="The most prompts decoded together.")
    calibration: Temperatures = Field(
        default=None, description="A temperature per model, the draft's first: how sure the verifier sees it."
    )

    def model_post_init(self, context: Any) -> None:
        """Refuse a method that cannot be, before any model is loaded."""
        super().model_post_init(context)
        check_adapters(self.assistant_adapter, len(self.assistants))
        self.method()

    @property
    def assistants(self) -> list[ModelSource]:
        """The assistants, as a list even of one."""
        return assistants_of({"assistant_model": self.assistant_model})

    def decoder(self) -> CoSDDecoder:
        """Load the models and put the decoder together. Instances that name the same models share them.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.from_pretrained` and :meth:`TreeVerifier.load`.
        """
        return CoSDDecoder.from_pretrained(**self.sources(), **self.method())

    def sources(self) -> dict[str, Any]:
        """The arguments of :meth:`CoSDDecoder.from_pretrained` that name the models and their loading."""
        return {
            "draft": self.draft_model,
            "assistant": self.assistant_model,
            "draft_adapter": self.draft_adapter,
            "assistant_adapter": self.assistant_adapter,
            **self._part(LoadingOptions),
        }

    def method(self) -> dict[str, Any]:
        """Its other arguments: how the models work together.

        Raises:
            CoSDError: A value is wrong, or a tree file cannot be read.
        """
        verifier = self._verifier()
        verifier.check(len(self.assistants))
        return {
            "verifier": verifier,
            "schedule": make_schedule(self.schedule),
            "draft_length": self.draft_length,
            "batch_size": self.batch_size,
            "calibration": calibration_of(verifier, self.calibration, 1 + len(self.assistants)),
        }

    def known_context_length(self) -> int | None:
        """The smallest context window of the models, as far as it is known without loading any."""
        loading = LoadingOptions(**self._part(LoadingOptions))
        lengths = [known_context_length(each, loading) for each in (self.draft_model, *self.assistants)]
        return min((length for length in lengths if length is not None), default=None)

    def known_to_chat(self) -> bool | None:
        """Whether the draft has a chat template, as far as it is known without loading it."""
        loading = LoadingOptions(**self._part(LoadingOptions))
        return known_to_chat(self.draft_model, loading, adapter=self.draft_adapter)

    def generation_options(self) -> dict[str, Any]:
        """The arguments of :meth:`CoSDDecoder.generate`."""
        return self._part(GenerationOptions)

    def _part(self, options: type[LoadingOptions] | type[GenerationOptions]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in options.model_fields}

    def _verifier(self) -> Verifier:
        for name in sorted(self.model_fields_set & set(OF_ONE_METHOD)):
            changed = getattr(self, name) != type(self).model_fields[name].default
            if changed and self.verifier != OF_ONE_METHOD[name]:
                raise InvalidOptionError(
                    f'{name}={quoted(getattr(self, name))} is a setting of verifier="{OF_ONE_METHOD[name]}", '
                    f"but verifier={quoted(self.verifier)}"
                )
        match self.verifier:
            case RuleVerifier.name:
                return RuleVerifier(self.alpha, self.beta)
            case AverageVerifier.name:
                return AverageVerifier(self.weight)
            case TreeVerifier.name if isinstance(self.tree_path, list) and self.tree_path:
                return make_verifier(list(map(_tree, self.tree_path)))
            case TreeVerifier.name if isinstance(self.tree_path, str):
                return _tree(self.tree_path)
        return make_verifier(self.verifier)


def read_settings(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a settings file, such as ``cosd tune`` writes: a JSON object with fields of :class:`Settings`.

    ::

        llm = CoSDLLM(**read_settings("tuned.json"))  # of LangChain, of LlamaIndex, or Settings itself

    It may leave out whatever will be given beside it, the models too. Nothing in it is executed.

    Raises:
        EvaluationFileError: The file cannot be read, is no such object, or a field is unknown or wrong.
    """
    where = f"settings {quoted(str(path))}"
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise EvaluationFileError(f"cannot read {where}: {quoted(error)}") from error
    if not isinstance(given, dict):
        raise EvaluationFileError(f"{where} should be a JSON object, not {quoted(given)}")
    try:
        Settings(**{"draft_model": "", "assistant_model": [""] * _assistants(given), **given})
    except CoSDError as error:
        raise EvaluationFileError(f"{where}: {error}") from error
    return given


def _assistants(given: Mapping[str, Any]) -> int:
    """How many assistants the settings of a file are for, where it names none."""
    per_assistant = [given.get(name) for name in ("verifier", "tree_path", "assistant_adapter")]
    counts = [len(each) for each in per_assistant if isinstance(each, list)]
    if isinstance(described := given.get("verifier"), Mapping) and described.get("name") == "panel":
        counts.append(len(described["members"]) if isinstance(described.get("members"), list) else 1)
    if isinstance(temperatures := given.get("calibration"), list):
        counts.append(len(temperatures) - 1)
    return max([1, *counts])


def assistants_of(settings: Mapping[str, Any]) -> list[ModelSource]:
    """The assistants that settings name, if any, as a list even of one."""
    assistants = settings.get("assistant_model", [])
    return assistants if isinstance(assistants, list) else [assistants]


def names_of(settings: Mapping[str, Any]) -> list[str]:
    """What the models that settings name are called, the draft first: as :class:`LanguageModel` calls itself.

    Raises:
        InvalidOptionError: There are not as many adapters as assistants.
    """
    assistants = assistants_of(settings)
    drafts = [settings["draft_model"]] if "draft_model" in settings else []
    adapters = [settings.get("draft_adapter")] * len(drafts)
    adapters += check_adapters(settings.get("assistant_adapter") if assistants else None, len(assistants))
    names = [
        each.name if isinstance(each, BaseLanguageModel) else str(each) for each in (*drafts, *assistants)
    ]
    return [with_adapter(name, adapter or None) for name, adapter in zip(names, adapters, strict=True)]


def naming(draft: str, assistant: str) -> dict[str, Any]:
    """The settings that name two models, from what these are called."""
    named: dict[str, Any] = {}
    for role, name in (("draft", draft), ("assistant", assistant)):
        named[f"{role}_model"], named[f"{role}_adapter"] = without_adapter(name)
    return {name: value for name, value in named.items() if value is not None}


def overlaid(file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from a file with others that go before them; another verifier has settings of its own."""
    kept = {
        name: value
        for name, value in file.items()
        if not ("verifier" in given and name in ("calibration", *OF_ONE_METHOD))
    }
    return {**kept, **given}


_trees: dict[str, tuple[float, TreeVerifier]] = {}


def _tree(path: str) -> TreeVerifier:
    """The tree of a file, read again only when the file has changed: every call asks for it."""
    try:
        changed = Path(path).stat().st_mtime_ns if Path(path).is_file() else -1
    except (OSError, ValueError) as error:
        raise VerifierFileError(f"cannot read tree file {quoted(path)}: {quoted(error)}") from error
    if path not in _trees or _trees[path][0] != changed:
        _trees[path] = (changed, TreeVerifier.load(path))
    return _trees[path][1]
