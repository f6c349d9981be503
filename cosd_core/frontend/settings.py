"""Every constructor parameter of the wrappers and flag of the command line, once, and what they build."""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo

from cosd_core.decoder import CoSDDecoder, ModelSource
from cosd_core.errors import InvalidOptionError, VerifierError, VerifierFileError, quoted
from cosd_core.frontend.model_names import assistant_sources, model_names
from cosd_core.generation.scheduling import Schedule, make_schedule
from cosd_core.models.loaded import wrap_loaded
from cosd_core.models.loading import known_chat_template, known_context_length
from cosd_core.options import GenerationOptions, LoadingOptions, check_adapters
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers import (
    AverageVerifier,
    RuleVerifier,
    TreeVerifier,
    Verifier,
    calibration_of,
    make_verifier,
)

MODEL_SETTINGS = ("draft_model", "assistant_model", "draft_adapter", "assistant_adapter")
"""The settings that name the models."""

VERIFIER_OF_SETTING = {"alpha": "rule", "beta": "rule", "tree_path": "tree", "weight": "average"}
"""The settings that only one verifier has, and the name of that verifier."""

SERVING_SETTINGS = (
    "batch_size", "max_concurrent", "max_waiting", "deterministic", "lookup", "prefill_chunk_size",
)  # fmt: skip
"""The settings that determine which prompts are decoded at the same time."""

METHOD_SETTINGS = (
    "verifier", *VERIFIER_OF_SETTING, "calibration", "schedule", "draft_length", *SERVING_SETTINGS,
)  # fmt: skip
"""The settings that determine how the models are fused, and when."""


def _as_source(value: object, info: ValidationInfo) -> object:
    if isinstance(value, Mapping) and "object" in value:
        raise ValueError("was a loaded model, which no text can hold: give its hub id or path, or the model")
    return wrap_loaded(info.field_name or "model", value)


def _as_verifier(value: object) -> object:
    return make_verifier(value) if isinstance(value, (Mapping, list, tuple)) else value


def _as_schedule(value: object) -> object:
    return make_schedule(value) if isinstance(value, Mapping) else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


if TYPE_CHECKING:  # the types that constructors accept, as in cosd_core/options/generation.py
    from cosd_core.decoder import LoadedModel

    Source = ModelSource | LoadedModel
    Temperatures = Sequence[float] | None
    VerifierLike = str | Verifier | Sequence[str | Verifier]
else:
    Source = Annotated[ModelSource, BeforeValidator(_as_source)]
    Temperatures = Annotated[tuple[float, ...] | None, BeforeValidator(_as_tuple)]
    VerifierLike = Annotated[str | Verifier | list[str | Verifier], BeforeValidator(_as_verifier)]


class SettingsFields(LoadingOptions, GenerationOptions):
    """The fields of :class:`Settings`, constructor parameters of the frameworks' classes too."""

    draft_model: Source = Field(description="The model that proposes: hub id or path.")
    assistant_model: Source | list[Source] = Field(
        description="The model whose tokens may replace the draft's: hub id or path. Several are possible."
    )
    draft_adapter: str | None = Field(
        default=None, description="A PEFT adapter (such as LoRA) over the draft: hub id or path."
    )
    assistant_adapter: str | list[str | None] | None = Field(
        default=None, description="The same for the assistant; for several, one each, empty for none."
    )
    verifier: VerifierLike = Field(
        default="rule",
        description="rule, tree, draft, assistant, speculative or average. Several: one per assistant.",
    )
    alpha: float = Field(
        default=0.5, description="rule: a draft token below this confidence may be replaced."
    )
    beta: float = Field(
        default=0.5, description="rule: least confidence of the assistant, relative to that of the draft."
    )
    tree_path: str | list[str] | None = Field(
        default=None, description="tree: the file of one. Several: one per assistant."
    )
    weight: float = Field(default=0.5, description="average: the draft's share of the mixture.")
    schedule: Annotated[str | Schedule, BeforeValidator(_as_schedule)] = Field(
        default="adaptive",
        description="adaptive runs an assistant only where it can matter; fixed: the paper's loop.",
    )
    draft_length: int = Field(
        default=8, ge=1, description="K: the most tokens drafted before they are verified."
    )
    batch_size: int = Field(default=32, ge=1, description="The most prompts decoded together.")
    max_concurrent: int = Field(
        default=256, ge=1, description="Async calls wait while so many of their prompts are decoded."
    )
    max_waiting: int = Field(default=1024, ge=1, description="The most async calls that wait; others fail.")
    deterministic: bool = Field(
        default=False, description="The same text in any batch also in bfloat16: prompts share no passes."
    )
    lookup: bool = Field(
        default=False, description="Guess tokens from the prompt and the text; for answers that repeat them."
    )
    prefill_chunk_size: int | None = Field(
        default=None, ge=1, description="About how many tokens of long prompts are processed at once."
    )
    calibration: Temperatures = Field(
        default=None,
        description="A temperature per model, the draft's first, for the confidences the verifier sees.",
    )


class Settings(SettingsFields):
    """The models, the verifier, how the models are loaded and how texts are generated: one frozen value.

    Tree files are read when the value is created.

    Raises:
        InvalidOptionError: A name is unknown, a value wrong, or a setting belongs to another verifier.
        VerifierFileError: A tree file cannot be read.
    """

    _method: Mapping[str, Any] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Refuse settings that contradict each other, before any model is loaded."""
        super().model_post_init(context)
        check_adapters(self.assistant_adapter, len(self.assistants))
        verifier = self._make_verifier()
        with guarded(VerifierError, verifier):
            verifier.check(len(self.assistants))
        self._method = {
            "verifier": verifier,
            "schedule": make_schedule(self.schedule),
            "draft_length": self.draft_length,
            **{name: getattr(self, name) for name in SERVING_SETTINGS},
            "calibration": calibration_of(verifier, self.calibration, 1 + len(self.assistants)),
        }

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A validated copy with other values for some fields.

        Raises:
            CoSDError: As the constructor.
        """
        copied = super().model_copy(deep=deep)
        given = {name: getattr(copied, name) for name in self.model_fields_set}
        return type(self)(**{**given, **update}) if update else copied

    @property
    def _draft(self) -> ModelSource:
        return cast(ModelSource, self.draft_model)

    @property
    def assistants(self) -> list[ModelSource]:
        """The assistants, as a list even of one."""
        return assistant_sources({"assistant_model": self.assistant_model})

    @cached_property
    def model_names(self) -> list[str]:
        """The names of the models, the draft first."""
        return model_names({name: getattr(self, name) for name in MODEL_SETTINGS})

    @property
    def model_name(self) -> str:
        """The models in logs and traces: their names, joined by a plus sign."""
        return "+".join(self.model_names)

    def decoder(self) -> CoSDDecoder:
        """Load the models and build the decoder. Settings that name the same models share their weights.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.from_pretrained`.
        """
        return CoSDDecoder.from_pretrained(**self.sources(), **self.method())

    def sources(self) -> dict[str, Any]:
        """The arguments of :meth:`CoSDDecoder.from_pretrained` that name the models and their loading."""
        return {
            "draft": self.draft_model,
            "assistant": self.assistant_model,
            "draft_adapter": self.draft_adapter,
            "assistant_adapter": self.assistant_adapter,
            **{name: getattr(self, name) for name in LoadingOptions.model_fields},
        }

    def method(self) -> Mapping[str, Any]:
        """The other arguments of :meth:`CoSDDecoder.from_pretrained`: verifier, schedule and sizes."""
        return self._method

    @cached_property
    def loading_options(self) -> LoadingOptions:
        """How the models are loaded."""
        return LoadingOptions(**{name: getattr(self, name) for name in LoadingOptions.model_fields})

    def known_context_length(self) -> int | None:
        """The smallest context window of the models in tokens, from their files; no model is loaded."""
        sources = (self._draft, *self.assistants)
        lengths = [known_context_length(each, self.loading_options) for each in sources]
        return min((length for length in lengths if length is not None), default=None)

    def known_chat_template(self) -> Any:
        """The draft's chat template from its files, as :func:`known_chat_template`; no model is loaded."""
        return known_chat_template(self._draft, self.loading_options, adapter=self.draft_adapter)

    def generation_options(self) -> dict[str, Any]:
        """The arguments of :meth:`CoSDDecoder.generate`: those that were given."""
        given = self.model_fields_set
        return {name: getattr(self, name) for name in GenerationOptions.model_fields if name in given}

    def _make_verifier(self) -> Verifier:
        for name, owner in VERIFIER_OF_SETTING.items():
            value = getattr(self, name)
            if self.verifier != owner and value != SettingsFields.model_fields[name].default:
                raise InvalidOptionError(
                    f'{name}={quoted(value)} is a setting of verifier="{owner}", '
                    f"but verifier={quoted(self.verifier)}"
                )
        match self.verifier:
            case RuleVerifier.name:
                return RuleVerifier(self.alpha, self.beta)
            case AverageVerifier.name:
                return AverageVerifier(self.weight)
            case TreeVerifier.name if isinstance(self.tree_path, list) and self.tree_path:
                return make_verifier([_read_tree(path, modified(path)) for path in self.tree_path])
            case TreeVerifier.name if isinstance(self.tree_path, str):
                return _read_tree(self.tree_path, modified(self.tree_path))
        return make_verifier(self.verifier)


def modified(path: str) -> int:
    """When a tree file was last modified, in nanoseconds; -1 if there is none."""
    try:
        return Path(path).stat().st_mtime_ns if Path(path).is_file() else -1
    except (OSError, ValueError) as error:
        raise VerifierFileError(f"cannot read tree file {quoted(path)}: {quoted(error)}") from error


@lru_cache(maxsize=64)
def _read_tree(path: str, modified: int) -> TreeVerifier:  # noqa: ARG001 - a modified file is read again
    return TreeVerifier.load(path)
