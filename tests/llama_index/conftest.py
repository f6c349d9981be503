"""What the tests of the LlamaIndex class share: pairs, ways to call, answers by a script, and ears.

Nothing here needs a network: texts are embedded by hashing their words.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llama_index.core
import pytest
import torch
from llama_index.core import Document, Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation import get_dispatcher
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from cosd_core import CoSDDecoder, Grammar, LanguageModel
from examples.bundled_pairs import load_chat_pair
from llama_index_cosd import CoSDLLM
from tests.chats import EOS, chat_model
from tests.models import ascii_model

WIDE = {"eos_token_id": None, "max_position_embeddings": 8192}
COMPLETIONS = ("complete", "stream_complete", "acomplete", "astream_complete")
CHATS = ("chat", "stream_chat", "achat", "astream_chat")
METHODS = (*COMPLETIONS, *CHATS)
STREAMS = tuple(method for method in METHODS if "stream" in method)

SYSTEM, USER, ASSISTANT, TOOL = (
    MessageRole.SYSTEM, MessageRole.USER, MessageRole.ASSISTANT, MessageRole.TOOL,
)  # fmt: skip


@pytest.fixture(scope="package")
def pair() -> tuple[LanguageModel, LanguageModel]:
    """Two models without a chat template."""
    return ascii_model(seed=0, **WIDE), ascii_model(seed=1, **WIDE)


@pytest.fixture(scope="package")
def chat_models() -> tuple[LanguageModel, LanguageModel]:
    """Two models of Hermes' template, whose texts begin with BOS."""
    return chat_model("hermes", seed=0, **WIDE), chat_model("hermes", seed=1, **WIDE)


@pytest.fixture
def plain(pair: Any) -> CoSDLLM:
    """A completion model."""
    return CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=16)


@pytest.fixture
def chat(chat_models: Any) -> CoSDLLM:
    """A chat model."""
    return CoSDLLM(draft_model=chat_models[0], assistant_model=chat_models[1], max_tokens=16)


@pytest.fixture(params=["completion", "chat"])
def llm(request: pytest.FixtureRequest) -> CoSDLLM:
    """Either."""
    found: CoSDLLM = request.getfixturevalue("plain" if request.param == "completion" else "chat")
    return found


@pytest.fixture(scope="package")
def bundled() -> CoSDLLM:
    """The bundled chat pair, which calls tools and answers from passages by itself."""
    draft, assistant = load_chat_pair()
    return CoSDLLM(draft_model=draft, assistant_model=assistant, alpha=0.9, max_tokens=96)


def decoder_of(llm: Any) -> CoSDDecoder:
    return CoSDDecoder(llm.draft_model, llm.assistant_model)


# Ways to call


async def responses(llm: Any, method: str, prompt: Any, **options: Any) -> list[Any]:
    """All responses of one call, one if it is no stream; a text becomes a user's message for chats."""
    if method in CHATS and isinstance(prompt, str):
        prompt = [ChatMessage(role=USER, content=prompt)]
    result = getattr(llm, method)(prompt, **options)
    if method.startswith("a"):
        result = await result
    if "stream" not in method:
        return [result]
    return [each async for each in result] if method.startswith("a") else list(result)


async def text_of(llm: Any, method: str, prompt: Any, **options: Any) -> str:
    return said(await responses(llm, method, prompt, **options))


def said(answer: Sequence[Any]) -> str:
    last = answer[-1]
    return str(last.message.content if hasattr(last, "message") else last.text)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``await call(thing, "query", ...)`` calls ``query`` or ``aquery``."""

    async def run(thing: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if request.param == "async":
            return await getattr(thing, f"a{method}")(*arguments, **options)
        return await within(asyncio.to_thread(getattr(thing, method), *arguments, **options))

    return run


async def within(awaited: Any, seconds: float = 20) -> Any:
    """What would hang must fail instead."""
    return await asyncio.wait_for(awaited, seconds)


# Answers by a script


class Script(LogitsProcessor):
    """Makes the models answer what a function of the prompt says; a mark ends every prompt."""

    stateless = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mark: str,
        answer: Callable[[str], str],
        *,
        ends: bool = True,
    ) -> None:
        self._tokenizer, self._answer, self._ends = tokenizer, answer, ends
        self._mark = tokenizer.encode(mark, add_special_tokens=False)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        ids, mark = input_ids[0].tolist(), self._mark
        begin = next(at for at in range(len(ids), 0, -1) if ids[at - len(mark) : at] == mark)
        wanted = self._tokenizer.encode(
            self._answer(self._tokenizer.decode(ids[:begin])), add_special_tokens=False
        )
        masked = torch.full_like(scores, -torch.inf)
        if (at := len(ids) - begin) < len(wanted) or self._ends:
            token = wanted[at] if at < len(wanted) else EOS
            masked[:, token] = scores[:, token]
            return masked
        return scores


def scripted(
    llm: Any, answer: str | Callable[[str], str], mark: str = "<|im_start|>assistant\n", **settings: Any
) -> CoSDLLM:
    """The model, which answers this."""
    said = answer if callable(answer) else lambda _: answer
    script = Script(llm.get_tokenizer(), mark, said)
    return llm.model_copy(update={"logits_processor": (script,), "max_new_tokens": 600, **settings})


def saying(llm: Any, text: str, **settings: Any) -> CoSDLLM:
    """The model, which can say nothing but this, whatever it is shown."""
    grammar = Grammar.lark(f"start: {json.dumps(text)}")
    return llm.model_copy(update={"grammar": grammar, "max_new_tokens": 400, **settings})


class Ends(LogitsProcessor):
    """Makes a text end at once."""

    stateless = True

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        masked = torch.full_like(scores, -torch.inf)
        masked[:, EOS] = scores[:, EOS]
        return masked


class Breaks(LogitsProcessor):
    """Raises after so many calls."""

    stateless = True

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("a bug in a processor")
        return scores


# Ears


class Spy(LogitsProcessor):
    """Notes what the models are shown, for models that write one token."""

    stateless = True

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        ids = input_ids[0].tolist()
        if ids not in self.seen and ids[:-1] not in self.seen:  # the assistant looks one token ahead
            self.seen.append(ids)
        return scores


class Spied:
    """A model that writes one token, and the prompts it has been shown."""

    def __init__(self, llm: Any, **settings: Any) -> None:
        self._spy = Spy()
        changed = {"logits_processor": (self._spy,), "max_new_tokens": 1, **settings}
        self.llm = llm.model_copy(update=changed)

    @property
    def ids(self) -> list[list[int]]:
        return self._spy.seen

    @property
    def shown(self) -> list[str]:
        return [str(self.llm.get_tokenizer().decode(ids)) for ids in self._spy.seen]

    @property
    def only(self) -> str:
        """The one prompt, and nothing before."""
        (shown,) = self.shown
        self._spy.seen.clear()
        return shown


class Events(BaseEventHandler):
    """Notes all events."""

    seen: list[Any] = []  # noqa: RUF012 - a field of pydantic's

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(event)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.seen]


@pytest.fixture
def events() -> Iterator[Events]:
    root, handler = get_dispatcher(), Events()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


# Retrieval


class HashEmbedding(BaseEmbedding):
    """Counts words by their hashes."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.0] * 256
        for word in text.lower().replace("?", " ").replace(".", " ").split():
            vector[int(hashlib.md5(word.encode()).hexdigest(), 16) % 256] += 1
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@pytest.fixture(autouse=True)
def embedding() -> Iterator[None]:
    """Every model must be given: there is no default one."""
    Settings.embed_model = HashEmbedding()
    yield
    Settings._llm = Settings._embed_model = Settings._callback_manager = None
    llama_index.core.global_tokenizer = None  # what Settings.tokenizer sets


VALLEY = (
    "The Kalo Bridge was built by Anra Velist.",
    "The Sora Tower is 88 meters high.",
    "Tamiro has 977 inhabitants.",
)


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text=text, id_=f"passage {at}") for at, text in enumerate(VALLEY)]
