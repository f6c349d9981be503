"""The values a user fills in: frozen, checked where they live, unknown names refused."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import inf
from os import PathLike
from sys import float_info
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from transformers import LogitsProcessor
from transformers.utils.quantization_config import QuantizationConfigMixin

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar

T = TypeVar("T")


def check_number(name: str, value: object, *, least: float = 0.0, most: float = inf) -> None:
    """Refuse what is no finite number within the bounds.

    Raises:
        InvalidOptionError: With the value and the bounds.
    """
    bounds = f"of at least {least:g}" if most == inf else f"between {least:g} and {most:g}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and least <= value <= min(most, float_info.max)):  # type: ignore[operator]
        raise InvalidOptionError(f"{name}={quoted(value)} should be a finite number {bounds}")


def check_calibration(calibration: object, models: int) -> tuple[float, ...]:
    """The temperatures of the models' confidences; all 1 for None.

    Args:
        calibration: One number per model, the draft's first.
        models: How many models there are.

    Raises:
        InvalidOptionError: They are not as many as the models, or one is no number from 0.01 to 100.
    """
    if calibration is None:
        return (1.0,) * models
    if not isinstance(calibration, (list, tuple)) or len(calibration) != models:
        raise InvalidOptionError(
            f"calibration={quoted(calibration)} should hold one temperature per model, the draft's first: "
            f"{models} numbers"
        )
    for temperature in calibration:
        check_number("calibration", temperature, least=0.01, most=100)
    return tuple(map(float, calibration))


def check_adapters(adapters: object, assistants: int) -> tuple[str | None, ...]:
    """The adapter of every assistant; None where it has none.

    Args:
        adapters: A hub id or path for the one assistant, or a list with one entry per assistant, or None.
        assistants: How many assistants there are.

    Raises:
        InvalidOptionError: They are not as many as the assistants, or one is no string.
    """
    given = [adapters] if isinstance(adapters, str | PathLike) else adapters
    if given is None:
        given = [None] * assistants
    if not isinstance(given, (list, tuple)) or len(given) != assistants:
        raise InvalidOptionError(
            f"assistant_adapter={quoted(adapters)} should hold a hub id, a path or None for every assistant, "
            f"one per assistant: {assistants}"
        )
    for adapter in given:
        if adapter is not None and not isinstance(adapter, str | PathLike):
            raise InvalidOptionError(
                f"assistant_adapter={quoted(adapters)} should hold hub ids, paths or None, "
                f"not {quoted(adapter)}"
            )
    return tuple(str(adapter) if adapter else None for adapter in given)


class Options(BaseModel):
    """Base of all option values: frozen, strict about types, and raising our own error in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None


def named(option: str, described: Mapping[str, Any], kinds: Mapping[str, Callable[..., T]]) -> T:
    """The object that is described by its name and settings, as its ``to_dict`` does.

    Raises:
        InvalidOptionError: There is none of that name, or it has no such settings.
    """
    settings = dict(described)
    kind = settings.pop("name", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidOptionError(f"{option}={quoted(described)} should name one of {', '.join(kinds)}")
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise InvalidOptionError(f"{option}={quoted(described)}: {quoted(error)}") from None


def unknown_option(name: str, known: Iterable[str]) -> str:
    """Say that there is no such option, and which one may be meant."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"unknown option {quoted(name)}: {hint}"


def in_one_line(error: ValidationError, options: type[BaseModel]) -> str:
    """What pydantic found, as a message of ours."""
    problems = {problem["loc"][:1]: problem for problem in reversed(error.errors(include_url=False))}
    return "; ".join(_problem(problem, options) for problem in reversed(problems.values()))


def _problem(problem: Any, options: type[BaseModel]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else options.__name__
    if problem["type"] == "extra_forbidden":
        return unknown_option(name, options.model_fields)
    if problem["type"] == "missing":
        return f"{name} is missing"
    what = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if name in options.model_fields and not options.model_fields[name].repr:
        return f"{name} {what}"  # a secret
    return f"{name}={quoted(problem['input'])} {what}"


def _as_strings(value: object) -> object:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise ValueError("should be a string or a list of strings")  # noqa: TRY004 - what pydantic reads
    return tuple(value)


def _as_ids(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, (list, set, tuple)) else value


def _as_processors(value: object) -> object:
    if value is None:
        return ()
    if isinstance(value, LogitsProcessor):
        return (value,)
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise ValueError("should be a LogitsProcessor or a list of them")  # noqa: TRY004 - what pydantic reads
    try:
        processors = tuple(value)
    except TypeError:
        raise ValueError("should be a LogitsProcessor or a list of them") from None
    for processor in processors:
        if not callable(processor):
            raise ValueError(f"should hold LogitsProcessors, not {quoted(processor)}")  # noqa: TRY004
    return processors


def _check_quantization(described: Mapping[str, Any]) -> None:
    """Refuse a method or names that do not exist: transformers would pass over the latter in silence."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KINDS

    method = described.get("quant_method")
    if method in (None, "bitsandbytes"):
        bits = [f"{bits}bit" for bits in (4, 8) if described.get(f"load_in_{bits}bit")]
        if method is None and not bits:
            raise ValueError("should say a quant_method: bitsandbytes, torchao, or another of transformers'")
        method = f"bitsandbytes_{bits[0] if bits else '8bit'}"
    if method not in KINDS:
        raise ValueError(f"{unknown_option(str(method), KINDS)} (quant_method)")
    known = tuple(inspect.signature(KINDS[method]).parameters)
    for name in described:
        if name not in ("quant_method", *known) and not name.startswith("_"):
            raise ValueError(f"{unknown_option(str(name), known)} (quantization_config)")


def _as_grammar(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("should say what it is: Grammar.regex(...), Grammar.lark(...)")  # noqa: TRY004
    return Grammar.of(value) if isinstance(value, (Mapping, type)) else value


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
StopString = Annotated[str, Field(min_length=1)]

if TYPE_CHECKING:
    # Type checkers take the type of a field for that of its constructor parameter. These accept more than
    # they hold.
    StopStrings = Sequence[str]
    TokenIds = Any
    Processors = Any
    GrammarLike = Any
else:
    StopStrings = Annotated[tuple[StopString, ...], BeforeValidator(_as_strings)]
    TokenIds = Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, BeforeValidator(_as_ids)]
    Processors = Annotated[tuple[Any, ...], BeforeValidator(_as_processors)]
    GrammarLike = Annotated[Grammar | None, BeforeValidator(_as_grammar)]


class GenerationKwargs(TypedDict, total=False):
    """The fields of :class:`GenerationOptions` as keyword arguments, for type checkers and editors."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: str | Sequence[str] | None
    eos_token_id: int | Collection[int] | None
    logits_processor: LogitsProcessor | Iterable[LogitsProcessor] | None
    grammar: Grammar | Mapping[str, Any] | type | None
    truncation: bool
    add_special_tokens: bool


class CallKwargs(GenerationKwargs, total=False):
    """The keyword arguments of the decoder's calls."""

    timeout: float | None


class LoadingKwargs(TypedDict, total=False):
    """The fields of :class:`LoadingOptions` as keyword arguments, for type checkers and editors."""

    dtype: str | torch.dtype
    device: str | torch.device
    device_map: str | dict[str, Any] | None
    attn_implementation: str | None
    quantization_config: QuantizationConfigMixin | dict[str, Any] | None
    revision: str | None
    subfolder: str
    token: str | bool | None
    cache_dir: str | None
    local_files_only: bool
    trust_remote_code: bool
    use_safetensors: bool
    tokenizer: str | None


class GenerationOptions(Options):
    """How one text is written. The names and meanings are those of transformers' ``GenerationConfig``.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type or out of its range.
    """

    max_new_tokens: int = Field(
        default=128, ge=1, description="Most tokens to write, the end token included."
    )
    min_new_tokens: int = Field(
        default=0, ge=0, description="No end-of-sequence token before this many tokens."
    )
    temperature: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="0 picks the most probable token; above 0 samples.",
    )
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Sample from the smallest set with this mass."
    )
    top_k: int = Field(default=0, ge=0, description="Sample from the k most probable tokens; 0 means all.")
    min_p: Probability = Field(
        default=0.0, description="Drop tokens below this share of the best one's probability."
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0.0, allow_inf_nan=False, description="Above 1 makes tokens seen before less likely."
    )
    seed: int | None = Field(
        default=None,
        description="Same seed and prompt, same text, for any draft length, schedule and batch; else random.",
    )
    stop: StopStrings = Field(default=(), description="Strings that end the text; they are not part of it.")
    eos_token_id: TokenIds = Field(
        default=None, description="Ids that end the text. None: those of the models' own generation configs."
    )
    logits_processor: Processors = Field(
        default=(),
        description="transformers LogitsProcessors, applied to every model. They must be stateless.",
    )
    grammar: GrammarLike = Field(
        default=None,
        description="What the text may be: a Grammar, or a JSON schema as a dictionary or a class.",
    )
    truncation: bool = Field(
        default=False, description="Cut a prompt that is too long from the left instead of raising an error."
    )
    add_special_tokens: bool = Field(
        default=True, description="Let the tokenizer add its special tokens (BOS) to a prompt given as text."
    )


class ChatOptions(Options):
    """How models are shown a chat. The names and meanings are those of transformers' ``apply_chat_template``.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type.
    """

    chat_template: str | None = Field(
        default=None, description="A Jinja template instead of every model's own."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description='What else a template asks for: {"enable_thinking": False}.'
    )


class LoadingOptions(Options):
    """How a model is loaded. The names and meanings are those of transformers' ``from_pretrained``.

    Raises:
        InvalidOptionError: A name is unknown, a value of a wrong type, or two contradict each other.
    """

    dtype: str | torch.dtype = Field(
        default="auto", description='"auto", "float32", "bfloat16", ... or a torch.dtype.'
    )
    device: str | torch.device = Field(
        default="auto", description='"auto" takes the best there is: cuda, mps, cpu.'
    )
    device_map: str | dict[str, Any] | None = Field(
        default=None, description="Spread one model (accelerate)."
    )
    attn_implementation: str | None = Field(
        default=None, description='"sdpa", "eager", "flash_attention_2", ...'
    )
    quantization_config: Any = Field(
        default=None, description='A transformers quantization config, or one as JSON: {"quant_method": ...}.'
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    subfolder: str = Field(default="", description="Folder inside the repository.")
    token: str | bool | None = Field(default=None, repr=False, description="Hub access token.")
    cache_dir: str | None = Field(default=None, description="Where the hub's files are kept.")
    local_files_only: bool = Field(default=False, description="Never ask the hub.")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model.")
    use_safetensors: bool = Field(
        default=True, description="False also admits pickled weights, which can run code."
    )
    tokenizer: str | None = Field(
        default=None, description="Hub id or path of the tokenizer, if not the model's own."
    )

    @field_validator("quantization_config")
    @classmethod
    def _is_quantization_config(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, QuantizationConfigMixin | dict):
            raise ValueError("should be a transformers quantization config, or one as a dictionary")
        if isinstance(value, dict):
            _check_quantization(value)
        return value

    @field_validator("dtype")
    @classmethod
    def _name_to_dtype(cls, value: str | torch.dtype) -> str | torch.dtype:
        named = getattr(torch, value, None) if isinstance(value, str) else value
        if value == "auto":
            return value
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise ValueError('should be "auto" or a torch float type, such as "float16"')
        return named

    def model_post_init(self, context: Any) -> None:
        """Refuse contradictions in the user's words."""
        super().model_post_init(context)
        if self.device_map is not None and self.device != "auto":
            raise InvalidOptionError(
                f"device={quoted(self.device)} and device_map={quoted(self.device_map)} contradict "
                "each other: give one"
            )
