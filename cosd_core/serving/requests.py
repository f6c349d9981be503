"""The requests that the server reads: OpenAI's fields, and the settings of cosd that a call may change."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from cosd_core.errors import InvalidOptionError, InvalidPromptError
from cosd_core.frontend.settings import VERIFIER_OF_SETTING, SettingsFields
from cosd_core.options import Probability

MAX_CHOICES = 128
"""The most choices of one request, over all its prompts."""

_RENAMED = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
_OF_CALL = (
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "top_k", "min_p", "min_new_tokens",
    "repetition_penalty", "truncation", "verifier", "alpha", "beta", "weight", "calibration", "schedule",
    "draft_length", "add_special_tokens", "chat_template_kwargs",
)  # fmt: skip
"""The fields that are settings of a call, where a request has them."""

Zero = Annotated[float, Field(ge=0, le=0)]
Json = dict[str, JsonValue]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: bool = Field(default=False, description="End with a chunk that has the usage.")
    include_obfuscation: bool = Field(default=False, description="Has no effect.")


class Ignored(_Strict):
    """Fields that OpenAI's clients send, and that cannot change a text. They have no effect."""

    user: str | None = None
    metadata: Json | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class PairFields(_Strict):
    """The settings of cosd that a request may change, under their own names."""

    verifier: str | list[str] | None = Field(default=None, description="rule, draft, assistant, ...")
    alpha: float | None = Field(default=None, description="Of the rule.")
    beta: float | None = Field(default=None, description="Of the rule.")
    weight: float | None = Field(default=None, description="Of the average.")
    calibration: list[float] | None = Field(default=None, description="A temperature per model.")
    schedule: Literal["adaptive", "fixed"] | None = None
    draft_length: Annotated[int, Field(ge=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Probability | None = None
    min_new_tokens: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    truncation: bool | None = None
    provenance: bool = Field(default=False, description="Return who wrote every token.")


class TextRequest(Ignored, PairFields):
    """What completions and chat completions have in common."""

    model: str = Field(description="The name that /v1/models gives.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(default=None, description="Choices.")
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = Field(default=None, description="The first choice's; the next one has seed + 1.")
    stop: str | list[Annotated[str, Field(min_length=1)]] | None = None
    presence_penalty: Zero | None = Field(default=None, description="only 0; see repetition_penalty")
    frequency_penalty: Zero | None = Field(default=None, description="only 0; see repetition_penalty")
    logit_bias: Annotated[Json, Field(max_length=0)] | None = Field(default=None, description="only empty")

    @model_validator(mode="after")
    def _check_stream_options(self) -> "TextRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        return self

    def options(self, verifier: Any) -> dict[str, Any]:
        """The options of the call: the settings that the request gives.

        Args:
            verifier: The server's own verifier, whose settings do not apply to another one that the request
                names.
        """
        given = {name: getattr(self, name) for name in _OF_CALL if getattr(self, name, None) is not None}
        options = {_RENAMED.get(name, name): value for name, value in given.items()}
        if options.get("verifier", verifier) != verifier:
            fields = SettingsFields.model_fields
            others = [name for name, owner in VERIFIER_OF_SETTING.items() if owner != options["verifier"]]
            options = {**{name: fields[name].default for name in others}, "calibration": None, **options}
        return options | self.logprobs_options()

    def logprobs_options(self) -> dict[str, Any]:
        """The options of the call on log probabilities."""
        raise NotImplementedError

    def seeds(self, default: int | None) -> list[int | None]:
        """The seed of every choice of a prompt; ``default`` is that of a request without a seed."""
        first = default if self.seed is None else self.seed
        return [None if first is None else first + number for number in range(self.n or 1)]


class CompletionRequest(TextRequest):
    """A request for completions of one prompt or several."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="Text, token ids, or a list.")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = Field(default=None, description="only false; the prompt is not repeated")
    best_of: Literal[1] | None = Field(default=None, description="only 1; n gives several choices")
    suffix: None = Field(default=None, description="only null; texts are continued, not filled in")
    add_special_tokens: bool | None = None

    def logprobs_options(self) -> dict[str, Any]:
        """The number of alternatives per token."""
        return {} if self.logprobs is None else {"logprobs": True, "top_logprobs": self.logprobs}

    def prompts(self) -> list[Any]:
        """The prompts, as a list even of one.

        Raises:
            InvalidPromptError: There is none.
            InvalidOptionError: There are too many choices.
        """
        if not self.prompt:
            raise InvalidPromptError(f"prompt={self.prompt!r} is empty")
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts: list[Any] = [self.prompt] if is_one else list(self.prompt)
        if len(prompts) * (self.n or 1) > MAX_CHOICES:
            raise InvalidOptionError(
                f"n={self.n or 1} choices of {len(prompts)} prompts are more than {MAX_CHOICES}"
            )
        return prompts


class Message(_Strict):
    """A message of a chat. Its content is text, or a list of text parts."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Json] | None = None
    name: str | None = None
    tool_calls: list[Json] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    annotations: Annotated[list[Json], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    def to_core(self) -> dict[str, Any]:
        """The message as :class:`Chat` takes it."""
        fields = self.model_dump(exclude_none=True, exclude={"annotations"})
        return fields | ({"role": "system"} if self.role == "developer" else {})


class ChatRequest(TextRequest):
    """A request for the next message of a chat."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Json] | None = Field(default=None, description="Functions, in OpenAI's form.")
    tool_choice: Literal["auto", "none", "required"] | Json | None = None
    parallel_tool_calls: bool | None = None
    response_format: Json | None = Field(default=None, description="text, json_object or json_schema.")
    continue_final_message: bool | None = Field(default=None, description="Continue the last message.")
    chat_template_kwargs: Json | None = Field(default=None, description="Variables of the template.")

    @model_validator(mode="after")
    def _check_limits(self) -> "ChatRequest":
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("max_tokens and max_completion_tokens are the same limit: give one")
        return self

    def logprobs_options(self) -> dict[str, Any]:
        """Whether log probabilities are returned, and the number of alternatives."""
        given = {"logprobs": self.logprobs, "top_logprobs": self.top_logprobs}
        return {name: value for name, value in given.items() if value is not None}

    def form(self) -> dict[str, Any]:
        """The options of the call on the form of its answer."""
        return {
            "tools": self.tools or (),
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": self.response_format,
            "continue_final_message": self.continue_final_message,
        }
