"""The base of the LlamaIndex class: its settings, their serialisation, and its metadata."""

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.types import PydanticProgramMode
from pydantic import ConfigDict, Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer
from transformers import PreTrainedTokenizerBase

from cosd_core import ChatOptions, TreeVerifier
from cosd_core.chat.formats import takes_tools
from cosd_core.frontend.framework_model import FrameworkModel
from cosd_core.frontend.serialization import to_jsonable
from cosd_core.frontend.settings_file import refuse_code


class CoSDModel(ChatOptions, FrameworkModel, FunctionCallingLLM, CustomLLM):
    """The settings of cosd as constructor parameters of a LlamaIndex LLM."""

    model_config = ConfigDict(frozen=False)

    is_chat_model: bool | None = Field(
        default=None, description="Whether engines send messages. None: if the draft has a chat template."
    )
    is_function_calling_model: bool | None = Field(
        default=None,
        description="Whether agents and programs pass tools to the chat template, or as plain text. None: if "
        "the draft's template takes tools.",
    )
    context_window: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of a prompt and its answer. None: the smallest window of the models.",
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
        """The properties that engines and agents read.

        They come from the models' files; if those are not on this machine yet, or lack a property, the models
        are loaded. Do that before you serve from an event loop, by a first call or :meth:`get_tokenizer`.
        """
        return self._metadata(may_load=True)

    def to_payload(self) -> dict[str, Any]:
        """The description of this LLM in events; it never loads a model."""
        draft, *assistants = self._source_settings().model_names
        return {
            "class_name": self.class_name(),
            **self._metadata(may_load=False).model_dump(mode="json"),
            "draft_model": draft,
            "assistant_model": assistants,
            "verifier": self._settings.method()["verifier"].to_dict(),
        }

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        """The draft's tokenizer: ``Settings.tokenizer = llm.get_tokenizer()`` makes LlamaIndex use it."""
        return self._decoder().draft.tokenizer

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self,
        handler: SerializerFunctionWrapHandler,  # noqa: ARG002 - it would keep objects
        info: SerializationInfo,
    ) -> dict[str, Any]:
        """The settings as plain JSON, from which :meth:`from_dict` builds the same LLM; without secrets."""
        fields = type(self).model_fields
        omitted = info.exclude or ()
        names = [name for name, field in fields.items() if not field.exclude and name not in omitted]
        if info.include is not None:
            names = [name for name in names if name in info.include]
        dump = {name: to_jsonable(getattr(self, name)) for name in names}
        if info.exclude_none:
            dump = {name: value for name, value in dump.items() if value is not None}
        if dump.get("verifier") == TreeVerifier.name:  # by its nodes: the file may change
            dump |= {"verifier": to_jsonable(self._settings.method()["verifier"]), "tree_path": None}
        return {**dump, "class_name": self.class_name()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """The LLM of a dictionary that :meth:`to_dict` made; ``kwargs`` take precedence.

        Raises:
            InvalidOptionError: The dictionary lets a model's files run code; only ``kwargs`` may.
        """
        refuse_code({name: value for name, value in data.items() if name not in kwargs})
        return super().from_dict(data, **kwargs)

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle settings and functions, without weights, callbacks and rate limiters."""
        state = super().__getstate__()
        fields = state["__dict__"].items()
        omitted = ("callback_manager", "rate_limiter")
        return {**state, "__dict__": {name: value for name, value in fields if name not in omitted}}

    @classmethod
    def _without_aliases(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        if values.get("class_name") == cls.class_name():  # dumps hold it
            values = {name: value for name, value in values.items() if name != "class_name"}
        return super()._without_aliases(values)

    def _metadata(self, *, may_load: bool) -> LLMMetadata:
        settings, window, template = self._source_settings(), None, None
        models = self.decoder_cache.models if self.decoder_cache.sources == settings.sources() else None
        if models is None:
            window, template = settings.known_context_length(), settings.known_chat_template()
            if may_load and None in (window, template):
                models = self._decoder().models
        if models is not None:
            window = min((model.context_length for model in models if model.context_length), default=None)
            template = models[0].tokenizer.chat_template
        if self.chat_template is not None:
            template = self.chat_template
        own_format = self.messages_to_prompt is not messages_to_prompt  # it excludes tools
        is_chat, calls = self.is_chat_model, self.is_function_calling_model
        return LLMMetadata(
            context_window=self.context_window or window or DEFAULT_CONTEXT_WINDOW,
            num_output=self.max_new_tokens,
            is_chat_model=bool(template) if is_chat is None else is_chat,
            is_function_calling_model=takes_tools(template) and not own_format if calls is None else calls,
            model_name=settings.model_name,
        )
