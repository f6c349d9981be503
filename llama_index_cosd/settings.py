"""What a LlamaIndex LLM is, before anybody calls it: its settings, and what they say of it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer
from transformers import PreTrainedTokenizerBase

from cosd_core import TreeVerifier
from cosd_core.frontend.framework_model import ChatFrameworkModel
from cosd_core.frontend.serialization import plain


class CoSDSettings(ChatFrameworkModel):
    """The settings of cosd as constructor parameters of a LlamaIndex LLM, and as text."""

    cache_key_fields: ClassVar[tuple[str, ...]] = (
        *ChatFrameworkModel.cache_key_fields,
        "logprobs",
        "system_prompt",
    )

    is_chat_model: bool | None = Field(
        default=None, description="Whether engines send messages. None: if the draft has a chat template."
    )
    is_function_calling_model: bool = Field(
        default=False,
        description="Whether agents and programs offer tools to the models, or describe them in text.",
    )
    context_window: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of a prompt and its answer. None: what the smallest model takes.",
    )
    logprobs: bool = Field(
        default=False, description="Tell every token's probability, and that of the one that lost."
    )
    pydantic_program_mode: PydanticProgramMode = Field(
        default=PydanticProgramMode.DEFAULT,
        strict=False,
        description="How structures are predicted: by a grammar (default), by a function call, or by text.",
    )

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised settings."""
        return "CoSDLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What engines and agents must know.

        It is read from the models' files; where those are not on this machine yet, or do not say, the models
        are loaded. Do that before you serve from an event loop, by a first call or :meth:`get_tokenizer`.
        """
        return self._metadata(may_load=True)

    def to_payload(self) -> dict[str, Any]:
        """What events say of this LLM; it never loads anything."""
        draft, *assistants = self._names
        told = {"draft_model": draft, "assistant_model": assistants, "verifier": self._verifier().to_dict()}
        known = self._metadata(may_load=False).model_dump(mode="json")
        return {"class_name": self.class_name(), **known, **told}

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """The pair's tokenizer: ``Settings.tokenizer = llm.get_tokenizer()`` makes LlamaIndex count by it."""
        return self._decoder().draft.tokenizer

    @classmethod
    def _by_own_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        if values.get("class_name") == cls.class_name():  # as it stands in dumps
            values = {name: value for name, value in values.items() if name != "class_name"}
        return super()._by_own_names(values)

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self,
        handler: SerializerFunctionWrapHandler,  # noqa: ARG002 - it would give objects as they are
        info: SerializationInfo,
    ) -> dict[str, Any]:
        """The settings as plain JSON, from which :meth:`from_dict` builds the same LLM; no secrets."""
        fields = type(self).model_fields
        names = [name for name, field in fields.items() if not field.exclude and name != "token"]
        if info.include is not None:
            names = [name for name in names if name in info.include]
        if info.exclude is not None:
            names = [name for name in names if name not in info.exclude]
        told = {name: plain(getattr(self, name)) for name in names}
        if info.exclude_none:
            told = {name: value for name, value in told.items() if value is not None}
        if told.get("verifier") == TreeVerifier.name:  # by its nodes: the file may change
            told |= {"verifier": plain(self._verifier()), "tree_path": None}
        return {**told, "class_name": self.class_name()}

    def __getstate__(self) -> dict[Any, Any]:
        """Settings and functions travel; weights, callbacks and rate limiters do not.

        Raises:
            InvalidOptionError: A model was given as an object.
        """
        self._check_portable()
        state = BaseModel.__getstate__(self)  # LlamaIndex's own takes out of the living what cannot travel
        left = ("callback_manager", "rate_limiter")
        return {
            **state,
            "__dict__": {key: state["__dict__"][key] for key in state["__dict__"] if key not in left},
        }

    def _metadata(self, *, may_load: bool) -> LLMMetadata:
        window, to_chat = self.loaded.remembered(
            "metadata", lambda: (self.known_context_length(), self.known_to_chat())
        )
        if None in (window, to_chat) and (may_load or self.loaded.is_loaded):
            models = self._decoder().models
            lengths = [model.context_length for model in models if model.context_length is not None]
            window, to_chat = min(lengths, default=None), bool(models[0].tokenizer.chat_template)
        is_chat = self.chat_template is not None or bool(to_chat)
        return LLMMetadata(
            context_window=self.context_window or window or DEFAULT_CONTEXT_WINDOW,
            num_output=self.max_new_tokens,
            is_chat_model=is_chat if self.is_chat_model is None else self.is_chat_model,
            is_function_calling_model=self.is_function_calling_model,
            model_name=self.model_name,
        )
