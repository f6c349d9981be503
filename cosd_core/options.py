"""The options of generation, chats and loading: frozen values, validated, unknown names rejected.

Values that are not valid raise :class:`InvalidOptionError`.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import inf
from os import PathLike
from sys import float_info
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticUndefined
from transformers import LogitsProcessor
from transformers.utils.quantization_config import QuantizationConfigMixin

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.grammar import Grammar

T = TypeVar("T")

CODE_OPTIONS = {"trust_remote_code": True, "use_safetensors": False}
"""Loading options, and the values with which loading a model can run code that comes with it."""

_MOST_PROBLEMS = 5
"""In the message of one error."""

MAX_STOP_STRINGS = 1000
MAX_STOP_CHARACTERS = 100_000
"""Of all stop strings together; finding them takes about 300 bytes of memory per character."""

SECRET_OPTIONS = ("token",)
"""Options that no dump, pickle or file holds."""


def check_number(name: str, value: object, *, least: float = 0.0, most: float = inf) -> None:
    """Check that a value is a finite number within bounds."""
    bounds = f"of at least {least:g}" if most == inf else f"between {least:g} and {most:g}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and least <= value <= min(most, float_info.max)):  # type: ignore[operator]
        raise InvalidOptionError(f"{name}={quoted(value)} should be a finite number {bounds}")


def check_counts(**values: object) -> None:
    """Check that values are whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidOptionError(f"{name}={quoted(value)} should be a whole number of at least 1")


def check_calibration(calibration: object, models: int) -> tuple[float, ...]:
    """One temperature, from 0.01 to 100, per model's confidences; 1 for all if ``calibration`` is None."""
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
    """The adapter of every assistant, or None for an assistant without one.

    ``adapters`` is a hub id or path for a single assistant, a list with one entry per assistant, or None.
    """
    if adapters is None:
        return (None,) * assistants
    entries = [adapters] if isinstance(adapters, str | PathLike) else adapters
    if not isinstance(entries, (list, tuple)) or len(entries) != assistants:
        raise InvalidOptionError(
            f"assistant_adapter={quoted(adapters)} should hold a hub id, a path or None for every assistant, "
            f"one per assistant: {assistants}"
        )
    for adapter in entries:
        if adapter is not None and not isinstance(adapter, str | PathLike):
            raise InvalidOptionError(
                f"assistant_adapter={quoted(adapters)} should hold hub ids, paths or None, "
                f"not {quoted(adapter)}"
            )
    return tuple(str(adapter) if adapter else None for adapter in entries)


class Options(BaseModel):
    """Base of all options: frozen, with strict types; raises :class:`InvalidOptionError` in one line.

    An option given as None has its default, as in transformers' ``GenerationConfig``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**without_nones(type(self), values))
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None


def without_nones(options: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that are None where the default is another value: these are not given."""
    fields = options.model_fields
    return {
        name: value
        for name, value in values.items()
        if value is not None or name not in fields or fields[name].default in (None, PydanticUndefined)
    }


def named(option: str, described: Mapping[str, Any], kinds: Mapping[str, Callable[..., T]]) -> T:
    """Make the object whose ``to_dict`` returned the name and settings in ``described``."""
    settings = dict(described)
    kind = settings.pop("name", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidOptionError(f"{option}={quoted(described)} should name one of {', '.join(kinds)}")
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise InvalidOptionError(f"{option}={quoted(described)}: {quoted(error)}") from None


def unknown_option(name: str, known: Iterable[str]) -> str:
    """The message for an unknown option, with the most similar name."""
    similar = get_close_matches(name, known, n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join(known)}"
    return f"unknown option {quoted(name)}: {hint}"


def in_one_line(error: ValidationError, options: type[BaseModel]) -> str:
    """The message of a pydantic error in one line, with the first problem of the first few fields."""
    problems = {problem["loc"][:1]: problem for problem in reversed(error.errors(include_url=False))}
    first = [_problem(problem, options) for problem in list(reversed(problems.values()))[:_MOST_PROBLEMS]]
    more = [f"and {len(problems) - len(first)} more"] if len(first) < len(problems) else []
    return "; ".join([*first, *more])


def _problem(problem: Any, options: type[BaseModel]) -> str:
    if not problem["loc"]:
        return f"{options.__name__}: {problem['msg']}"  # without the input, which may hold secrets
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return unknown_option(name, options.model_fields)
    if problem["type"] == "missing":
        return f"{name} is missing"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if name in options.model_fields and not options.model_fields[name].repr:
        return f"{name} {message}"  # the value is secret, such as an access token
    return f"{name}={quoted(problem['input'])} {message}"


def _as_strings(value: object) -> object:
    value = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)):
        raise ValueError("should be a string or a list of strings")  # noqa: TRY004 - pydantic catches it
    if len(value) > MAX_STOP_STRINGS:
        raise ValueError(f"should hold at most {MAX_STOP_STRINGS} strings, not {len(value)}")
    return tuple(value)


def _check_characters(value: tuple[str, ...]) -> tuple[str, ...]:
    if (characters := sum(map(len, value))) > MAX_STOP_CHARACTERS:
        raise ValueError(f"should hold at most {MAX_STOP_CHARACTERS} characters, not {characters}")
    return value


def _as_ids(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, (list, set, tuple)) else value


def _as_processors(value: object) -> object:
    processors = [value] if isinstance(value, LogitsProcessor) else [] if value is None else value
    if not isinstance(processors, Iterable) or isinstance(processors, (str, bytes)):
        raise ValueError("should be a LogitsProcessor or a list of them")  # noqa: TRY004
    try:
        processors = tuple(processors)
    except TypeError:  # a tensor without dimensions claims to be iterable
        raise ValueError("should be a LogitsProcessor or a list of them") from None
    for processor in processors:
        if not callable(processor):
            raise ValueError(f"should hold LogitsProcessors, not {quoted(processor)}")  # noqa: TRY004
    return processors


def _check_quantization(described: Mapping[str, Any]) -> None:
    """Reject an unknown method or unknown names: transformers ignores unknown names silently."""
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


def _as_token(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and not all("!" <= letter <= "~" for letter in text):
        # An HTTP library would quote it in its error.
        raise ValueError("should be visible ASCII characters alone, without spaces and line breaks")
    return value


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
    Token = SecretStr | str | bool | None
else:
    StopStrings = Annotated[
        tuple[StopString, ...], BeforeValidator(_as_strings), AfterValidator(_check_characters)
    ]
    TokenIds = Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, BeforeValidator(_as_ids)]
    Processors = Annotated[tuple[Any, ...], BeforeValidator(_as_processors)]
    GrammarLike = Annotated[Grammar | None, BeforeValidator(_as_grammar)]
    Token = Annotated[SecretStr | bool | None, BeforeValidator(_as_token)]


class GenerationKwargs(TypedDict, total=False):
    """The fields of :class:`GenerationOptions` as keyword arguments, for type checkers and editors."""

    max_new_tokens: int | None
    min_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    eos_token_id: int | Collection[int] | None
    logits_processor: LogitsProcessor | Iterable[LogitsProcessor] | None
    grammar: Grammar | Mapping[str, Any] | type | None
    truncation: bool | None
    add_special_tokens: bool | None


class CallKwargs(GenerationKwargs, total=False):
    """The keyword arguments of the decoder's calls."""

    timeout: float | None


class SyncCallKwargs(CallKwargs, total=False):
    """The keyword arguments of the decoder's calls that are not for asyncio."""

    share_batches: bool


class LoadingKwargs(TypedDict, total=False):
    """The fields of :class:`LoadingOptions` as keyword arguments, for type checkers and editors."""

    dtype: str | torch.dtype | None
    device: str | torch.device | None
    device_map: str | dict[str, Any] | None
    attn_implementation: str | None
    quantization_config: QuantizationConfigMixin | dict[str, Any] | None
    revision: str | None
    subfolder: str | None
    token: SecretStr | str | bool | None
    cache_dir: str | None
    local_files_only: bool | None
    trust_remote_code: bool | None
    use_safetensors: bool | None
    tokenizer: str | None
    cache_tolerance: float | None
    n_ctx: int | None
    n_gpu_layers: int | None
    n_threads: int | None


class GenerationOptions(Options):
    """Options of one generation. The names and meanings are those of transformers' ``GenerationConfig``.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type or out of its range.
    """

    max_new_tokens: int = Field(default=128, ge=1, description="The token limit, the end token included.")
    min_new_tokens: int = Field(default=0, ge=0, description="No end token before this many tokens.")
    temperature: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="0: the most probable token; above 0: sampling."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample from the smallest set with this mass.")
    top_k: int = Field(default=0, ge=0, description="Sample from the k most probable tokens; 0 means all.")
    min_p: Probability = Field(default=0.0, description="The minimum probability, as a share of the highest.")
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
        default=(), description="transformers LogitsProcessors, applied to every model; must be stateless."
    )
    grammar: GrammarLike = Field(
        default=None, description="Constrains the text: a Grammar, or a JSON schema as a dictionary or class."
    )
    truncation: bool = Field(
        default=False, description="Cut a prompt that is too long from the left instead of raising an error."
    )
    add_special_tokens: bool = Field(
        default=True, description="Let the tokenizer add its special tokens (BOS) to a text without them."
    )


class ChatOptions(Options):
    """Options of rendering a chat. Names and meanings are those of transformers' ``apply_chat_template``.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type.
    """

    chat_template: str | None = Field(default=None, description="A Jinja template instead of the models'.")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description='Further variables of the template: {"enable_thinking": False}.'
    )


class LoadingOptions(Options):
    """Options of loading a model. The names and meanings are those of transformers' ``from_pretrained``.

    ``n_ctx``, ``n_gpu_layers`` and ``n_threads`` are llama.cpp's, for GGUF files.

    Raises:
        InvalidOptionError: A name is unknown, a value of a wrong type, or two contradict each other.
    """

    dtype: str | torch.dtype = Field(default="auto", description='"auto", "float32", ... or a torch.dtype.')
    device: str | torch.device = Field(default="auto", description='"auto": the first of cuda, mps, cpu.')
    device_map: str | dict[str, Any] | None = Field(default=None, description="Spread a model (accelerate).")
    attn_implementation: str | None = Field(default=None, description='"sdpa", "flash_attention_2", ...')
    quantization_config: Any = Field(
        default=None, description='A transformers quantization config, or one as JSON: {"quant_method": ...}.'
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    subfolder: str = Field(default="", description="Folder inside the repository.")
    token: Token = Field(default=None, repr=False, exclude=True, description="Hub access token.")
    cache_dir: str | None = Field(default=None, description="The folder of downloaded files.")
    local_files_only: bool = Field(default=False, description="Make no request to the hub.")
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model.")
    use_safetensors: bool = Field(default=True, description="False admits pickle files, which can run code.")
    tokenizer: str | None = Field(default=None, description="Hub id or path of another tokenizer.")
    cache_tolerance: float | None = Field(
        default=None,
        ge=0,
        description="How far a cache may change the logits, in standard deviations of them; None: measured.",
    )
    n_ctx: int | None = Field(
        default=None, ge=0, description="GGUF: most tokens of prompt and answer; default: as it was trained."
    )
    n_gpu_layers: int | None = Field(
        default=None, ge=-1, description="GGUF: how many layers a GPU runs; -1, the default: all."
    )
    n_threads: int | None = Field(
        default=None, ge=1, description="GGUF: threads of a pass; default: half of the processors."
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
        dtype = getattr(torch, value, None) if isinstance(value, str) else value
        if value == "auto":
            return value
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError('should be "auto" or a torch float type, such as "float16"')
        return dtype

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle everything but secrets."""
        state = BaseModel.__getstate__(self)  # not super(): subclasses of frameworks' classes override it
        return {**state, "__dict__": {**state["__dict__"], **dict.fromkeys(SECRET_OPTIONS)}}

    def model_post_init(self, context: Any) -> None:
        """Reject options that contradict each other."""
        super().model_post_init(context)
        if self.device_map is not None and self.device != "auto":
            raise InvalidOptionError(
                f"device={quoted(self.device)} and device_map={quoted(self.device_map)} contradict "
                "each other: give one"
            )
