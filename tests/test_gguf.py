"""Claim: models in GGUF files write what an uncached loop over llama.cpp writes, through every door."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="needs the extra cosd[gguf]")
pytest.importorskip("gguf")

from cosd_core import (
    CoSDDecoder,
    GGUFModel,
    Grammar,
    LanguageModel,
    RuleVerifier,
    TreeVerifier,
    observe,
)
from cosd_core.models.gguf.context import Context
from cosd_core.models.gguf.library import llama_cpp
from cosd_core.models.logits_session import open_logits_session
from cosd_core.training.examples import Example
from cosd_core.verifiers import AssistantVerifier, AverageVerifier, DraftVerifier, Leaf, Split
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests import translated_reference
from tests.gguf_files import llama, save_gguf, save_lora, save_mamba
from tests.reference import assert_agrees, write
from tests.test_session import read_in_chunks
from tests.tokenizers import gpt2

_STUMP = (Split("p", 0.6, 1, 4), Split("q", 0.3, 2, 3), Leaf(False), Leaf(True), Leaf(False))
VERIFIERS: list[Any] = [
    RuleVerifier(), RuleVerifier(alpha=1.01, beta=0.0), RuleVerifier(alpha=0.9, beta=1.01),
    AssistantVerifier(), DraftVerifier(), AverageVerifier(weight=0.4), TreeVerifier(_STUMP),
]  # fmt: skip
PROMPTS = [
    "Paris",
    "The quick brown fox",
    "def add(left, right):\n    return",
    "naïve 你好 🦊",
    "Rom 12, ist",
]
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module", autouse=True)
def exact_arithmetic() -> Iterator[None]:
    """Keys and values in float32: in float16 the texts of random models depend on the shapes of passes."""
    library = llama_cpp()
    defaults = library.llama_context_default_params

    def exact() -> Any:
        parameters = defaults()
        parameters.type_k = parameters.type_v = library.GGML_TYPE_F32
        parameters.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return parameters

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(library, "llama_context_default_params", exact)
        yield


@pytest.fixture(scope="module")
def twins() -> list[LanguageModel]:
    """Models of transformers, the last one with other tokens."""
    return [llama(0), llama(1), llama(2), llama(3, gpt2(2000))]


@pytest.fixture(scope="module")
def files(twins: list[LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same as GGUF files."""
    folder = tmp_path_factory.mktemp("gguf")
    return [save_gguf(model, folder / f"tiny-{at}.gguf", template=TEMPLATE) for at, model in enumerate(twins)]


@pytest.fixture(scope="module")
def models(files: list[str]) -> list[GGUFModel]:
    return [GGUFModel.from_pretrained(file, n_threads=1) for file in files]


def test_logits_are_those_of_the_same_weights_in_transformers(
    models: list[GGUFModel], twins: list[LanguageModel]
) -> None:
    for model, twin in zip(models, twins, strict=True):
        ids = twin.encode("Paris is the capital of France; Berlin is the capital of Germany.")
        found = open_logits_session(model, vocabulary=model.vocabulary_size).logits([ids], last=len(ids))
        expected = twin.model(torch.tensor([ids])).logits.detach()
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
        assert model.eos_token_ids == twin.eos_token_ids
        assert model.context_length == twin.context_length


ids_of_row = st.lists(st.integers(0, 399), min_size=1, max_size=40)


@pytest.mark.parametrize("kind", ["attention", "recurrent"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_sequence_of_changes_gives_the_logits_of_fresh_passes(
    kind: str, data: st.DataObject, models: list[GGUFModel], mamba: GGUFModel
) -> None:
    model = models[0] if kind == "attention" else mamba
    session = open_logits_session(model, vocabulary=400)
    rows: list[list[int]] = data.draw(st.lists(ids_of_row, min_size=1, max_size=3))
    for _ in range(data.draw(st.integers(1, 5))):
        last = data.draw(st.integers(1, 5))
        if session.num_rows in (0, len(rows)) and data.draw(st.booleans(), label="read"):
            read_in_chunks(session, rows, most=data.draw(st.integers(1, 20)))
        for ids, found in zip(rows, session.logits(rows, last=last), strict=True):
            assert_fresh(model, ids, found[-min(last, len(ids)) :])
        if data.draw(st.booleans(), label="join"):
            other, others = (
                open_logits_session(model, vocabulary=400),
                data.draw(st.lists(ids_of_row, max_size=2)),
            )
            if others:
                other.logits(others, last=1)
            session.join(other)
            rows += others
        kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)), label="keep")
        session.select([at for at, keep in enumerate(kept) if keep])
        rows = [ids for ids, keep in zip(rows, kept, strict=True) if keep]
        more = st.lists(st.integers(0, 399), max_size=12)
        rows = [ids[: data.draw(st.integers(1, len(ids)))] + data.draw(more) for ids in rows]
        rows += data.draw(st.lists(ids_of_row, min_size=not rows, max_size=2), label="add")


def assert_fresh(model: GGUFModel, ids: list[int], found: torch.Tensor) -> None:
    session = open_logits_session(model, vocabulary=400)
    expected = session.logits([ids], last=len(found))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.001)


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> GGUFModel:
    path = save_mamba(gpt2(400), tmp_path_factory.mktemp("mamba") / "mamba.gguf", seed=0)
    return GGUFModel.from_pretrained(path, n_threads=1)


def test_a_recurrent_model_takes_part(mamba: GGUFModel, models: list[GGUFModel]) -> None:
    assert not mamba.batchable
    decoder = CoSDDecoder(mamba, models[0])
    texts = decoder.generate(PROMPTS[:2], max_new_tokens=12)
    for prompt, text in zip(PROMPTS, texts, strict=False):
        assert text.token_ids == write(mamba, [models[0]], RuleVerifier(), prompt, max_new_tokens=12).ids


@pytest.mark.parametrize("number", range(20))
def test_greedy_text_is_that_of_an_uncached_loop(number: int, models: list[GGUFModel]) -> None:
    """Five prompts each: 100 cases."""
    random = Random(number)
    pair = random.sample(models[:3], 2 + number % 2)
    verifier = VERIFIERS[number % len(VERIFIERS)]
    if number % 2 and not isinstance(verifier, RuleVerifier):
        pair = pair[:2]
    decoder = CoSDDecoder(
        pair[0],
        pair[1:],
        verifier=verifier,
        schedule=random.choice(["adaptive", "fixed"]),
        draft_length=random.choice([1, 3, 8]),
    )
    trees = {"tree": lambda p, q: p <= 0.6 and q > 0.3} if isinstance(verifier, TreeVerifier) else {}
    texts = decoder.generate(PROMPTS, max_new_tokens=16)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        expected = write(pair[0], pair[1:], verifier, prompt, max_new_tokens=16, **trees)
        assert_agrees(text, expected, asked=False, tolerance=0.001)


def test_contexts_grow_with_the_texts_and_chunks_change_nothing(models: list[GGUFModel]) -> None:
    session = open_logits_session(models[0], vocabulary=400)
    ids = [7 * at % 400 for at in range(480)]
    rows = [ids[:60], ids[:5]]
    session.logits(rows, last=1)
    rows = [ids, ids[:5], *(ids[at:300] for at in range(12))]  # more positions and rows than before
    for row, found in zip(rows, session.logits(rows, last=3), strict=True):
        assert_fresh(models[0], row, found)
    everything = session.logits([ids], last=480) if session.select([0]) is None else None
    assert everything is not None
    assert_fresh(models[0], ids, everything[0])


def test_rows_without_wanted_positions_are_not_fed(models: list[GGUFModel]) -> None:
    session = open_logits_session(models[0], vocabulary=400)
    found = session.position_logits([[1, 2, 3], [4, 5]], [0, 2])
    assert [len(each) for each in found] == [0, 2]
    found = session.position_logits([[1, 2, 3, 4], [4, 6]], [3, 0])
    assert_fresh(models[0], [1, 2, 3, 4], found[0])


def test_a_seed_gives_one_text_for_any_batch_and_block(models: list[GGUFModel]) -> None:
    options: dict[str, Any] = {"max_new_tokens": 16, "temperature": 1.0, "top_p": 0.9, "seed": 5}
    one = CoSDDecoder(models[0], models[1], draft_length=2, batch_size=1).generate(PROMPTS, **options)
    two = CoSDDecoder(models[0], models[1], draft_length=8, schedule="fixed").generate(PROMPTS, **options)
    assert [each.token_ids for each in one] == [each.token_ids for each in two]


def test_speculative_decoding_writes_with_a_gguf_pair(models: list[GGUFModel]) -> None:
    decoder = CoSDDecoder(models[0], models[1], verifier="speculative")
    assert decoder.generate("Paris", max_new_tokens=8).token_ids


@pytest.mark.parametrize("mixed", [False, True])
def test_models_with_different_tokens(
    models: list[GGUFModel], twins: list[LanguageModel], mixed: bool
) -> None:
    other = twins[3] if mixed else models[3]
    decoder = CoSDDecoder(models[0], other)
    assert not decoder.shares_vocabulary
    for prompt in PROMPTS[:3]:
        text = decoder.generate(prompt, max_new_tokens=20)
        expected = translated_reference.write(
            models[0], [other], lambda p, q: p < 0.5 and q > 0.5 * p, prompt, max_new_tokens=20
        )
        assert text.token_ids == expected.ids


def test_a_mixed_pair_with_one_tokenizer_shares_its_vocabulary(
    models: list[GGUFModel], twins: list[LanguageModel]
) -> None:
    decoder = CoSDDecoder(twins[0], models[1])
    assert decoder.shares_vocabulary
    assert decoder._alignment.barred == frozenset()
    for prompt in PROMPTS:
        text = decoder.generate(prompt, max_new_tokens=16)
        expected = write(twins[0], [models[1]], RuleVerifier(), prompt, max_new_tokens=16)
        assert_agrees(text, expected, asked=False, tolerance=0.001)


def test_a_grammar_holds(models: list[GGUFModel]) -> None:
    decoder = CoSDDecoder(models[0], models[1:3])
    for prompt in PROMPTS:
        text = decoder.generate(prompt, grammar=Grammar.regex("(yes|no), [0-9]{3}"), max_new_tokens=20)
        assert re.fullmatch("(yes|no), [0-9]{3}", text.text)


def test_verifiers_are_learned_from_them(models: list[GGUFModel]) -> None:
    examples = [Example(prompt, " of Germany and Italy.", "here") for prompt in PROMPTS]
    found = observe(models[:2], examples)
    assert len(found) > 20


def test_a_lora_over_one_copy_of_the_weights(files: list[str], twins: list[LanguageModel]) -> None:
    adapter = save_lora(twins[0], Path(files[0]).parent / "skill.gguf", seed=1)
    decoder = CoSDDecoder.from_pretrained(files[0], files[0], draft_adapter=adapter, n_threads=1)
    draft, assistant = decoder.models
    assert isinstance(draft, GGUFModel)
    assert isinstance(assistant, GGUFModel)
    assert draft.pool.weights is assistant.pool.weights
    assert draft.name == "tiny-0.gguf[skill.gguf]"
    assert draft.fingerprint != assistant.fingerprint
    ids = draft.encode("Paris is the capital")
    logits = [open_logits_session(each, vocabulary=400).logits([ids], last=1) for each in decoder.models]
    assert not torch.allclose(*logits, atol=0.5)


def test_threads_may_decode_at_once(models: list[GGUFModel]) -> None:
    decoder = CoSDDecoder(models[0], models[1])
    alone = [decoder.generate(prompt, max_new_tokens=24).token_ids for prompt in PROMPTS]
    with ThreadPoolExecutor(5) as pool:
        together = list(
            pool.map(lambda prompt: decoder.generate(prompt, max_new_tokens=24).token_ids, PROMPTS * 3)
        )
    assert together == alone * 3


def test_langchain_and_llama_index_stream_and_chat(files: list[str]) -> None:
    named: dict[str, Any] = {"draft_model": files[0], "assistant_model": files[1], "n_threads": 1}
    decoder = CoSDDecoder.from_pretrained(files[0], files[1], n_threads=1)
    expected = decoder.generate("Paris", max_new_tokens=12).text
    assert "".join(LangChainLLM(**named, max_tokens=12).stream("Paris")) == expected
    llm = LlamaIndexLLM(**named, max_new_tokens=12)
    assert list(llm.stream_complete("Paris", formatted=True))[-1].text == expected
    chat = ChatCoSD(**named, max_tokens=12)
    assert chat._settings.known_chat_template() == TEMPLATE
    rendered = decoder.generate("[user] Hello\n[assistant] ", max_new_tokens=12).text
    assert "".join(str(chunk.content) for chunk in chat.stream("Hello")) == rendered
    assert chat._settings.known_context_length() == 512


def count_fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ids llama.cpp processes from now on, per pass."""
    fed: list[int] = []
    run = Context.run

    def counted(self: Context, feeds: Any, **options: Any) -> torch.Tensor:
        fed.append(sum(len(feed.ids) for feed in feeds))
        return run(self, feeds, **options)

    monkeypatch.setattr(Context, "run", counted)
    return fed


def test_the_next_turn_reads_what_is_new(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fed = count_fed(monkeypatch)
    prompt = "The second turn of a chat begins like the first one, and nobody reads that again. "
    texts, read = [], []
    for size in (8, 0):
        loaded = [GGUFModel.from_pretrained(file, prefix_cache_mb=size) for file in files[:2]]
        decoder = CoSDDecoder(*loaded, verifier="assistant")
        first = decoder.generate(prompt, max_new_tokens=8)
        fed.clear()
        texts.append(decoder.generate(prompt + first.text + " And then?", max_new_tokens=1).token_ids)
        read.append(sum(fed))
    assert texts[0] == texts[1]
    assert read[0] < read[1] / 2


def test_what_the_prompts_of_a_list_begin_with_is_read_once(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = count_fed(monkeypatch)
    prompts = [f"All of these prompts begin alike, and nobody reads that twice. And {at}?" for at in range(8)]
    texts, read = [], []
    for size in (8, 0):
        loaded = [GGUFModel.from_pretrained(file, prefix_cache_mb=size) for file in files[:2]]
        decoder = CoSDDecoder(*loaded, verifier="assistant", prefill_chunk_size=16)
        fed.clear()
        texts.append([each.token_ids for each in decoder.generate(prompts, max_new_tokens=2)])
        read.append(sum(fed))
    assert texts[0] == texts[1]
    assert read[0] < read[1] / 2
