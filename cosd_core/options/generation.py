"""The options of one generation, and of rendering a chat."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from pydantic import AfterValidator, BeforeValidator, Field
from transformers import LogitsProcessor

from cosd_core.errors import quoted
from cosd_core.grammar import Grammar
from cosd_core.options.base import Options

MAX_STOP_STRINGS = 1000
MAX_STOP_CHARACTERS = 100_000
"""Of all stop strings together; finding them takes about 300 bytes of memory per character."""


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
    StopStrings = Annotated[
        tuple[StopString, ...], BeforeValidator(_as_strings), AfterValidator(_check_characters)
    ]
    TokenIds = Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, BeforeValidator(_as_ids)]
    Processors = Annotated[tuple[Any, ...], BeforeValidator(_as_processors)]
    GrammarLike = Annotated[Grammar | None, BeforeValidator(_as_grammar)]


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


ANSWER_TOKENS = 512
"""The ``max_new_tokens`` of chats and servers unless it is given; at most half of the context window."""


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
