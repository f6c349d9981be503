"""What the class says of itself, and how it travels: metadata, payloads, dictionaries, pickles, copies."""

import copy
import gc
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_index.core import Settings
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.extractors import KeywordExtractor
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.llms.loading import load_llm
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.types import PydanticProgramMode
from llama_index.core.utils import get_tokenizer
from pydantic import BaseModel

import cosd_core.models.language_model as registry
from cosd_core import (
    FixedSchedule,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    Leaf,
    RuleVerifier,
    Split,
    TreeVerifier,
)
from cosd_core.demo import held_out, load_pair
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainCoSDLLM
from llama_index_cosd import CoSDLLM
from tests.chats import TEMPLATES, chat_model, tokenizer
from tests.llama_index.conftest import WIDE, Ends
from tests.models import ascii_model, counted_passes

Save = Callable[..., str]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Write a model to a folder of its own; the folder's path."""

    def write(model: LanguageModel) -> str:
        folder = tmp_path_factory.mktemp("model")
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="module")
def saved(save: Save) -> dict[str, str]:
    """The paths of a completion pair and of a chat pair."""
    return {
        "draft_model": save(ascii_model(seed=0, **WIDE)),
        "assistant_model": save(ascii_model(seed=1, **WIDE)),
    }


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model fails the test."""

    def load(name: str, *_: Any) -> Any:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(registry, "load", load)


# Metadata


def test_metadata_needs_no_loaded_models(save: Save, unloadable: None) -> None:
    small, wide = (save(ascii_model(seed=3, max_position_embeddings=size)) for size in (512, 1024))
    chatting = save(chat_model("chatml", seed=0))
    for draft, assistant, window, is_chat in (
        (small, wide, 512, False), (wide, small, 512, False), (wide, wide, 1024, False),
        (chatting, small, 512, True), (small, chatting, 512, False), (small, [wide, chatting], 512, False),
    ):  # fmt: skip
        llm = CoSDLLM(draft_model=draft, assistant_model=assistant, max_tokens=7)
        told = llm.metadata
        assert (told.context_window, told.is_chat_model, told.num_output) == (window, is_chat, 7)
        assert told.is_function_calling_model is False
        paths = [draft, *(assistant if isinstance(assistant, list) else [assistant])]
        assert told.model_name == "+".join(Path(path).name for path in paths)
        assert llm.to_payload()["context_window"] == window


def test_metadata_of_loaded_models(llm: Any) -> None:
    assert llm.metadata.context_window == 8192
    assert llm.metadata.is_chat_model is ("hermes" in llm.metadata.model_name)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_the_drafts_template_decides_whether_it_calls_functions(template: str, save: Save) -> None:
    model, other = chat_model(template, seed=0), chat_model("hermes", seed=1)
    takes_tools = bool(TEMPLATES[template]) and "if tools" in str(TEMPLATES[template])
    for draft in (model, save(model)):
        llm = CoSDLLM(draft_model=draft, assistant_model=other)
        assert llm.metadata.is_function_calling_model is takes_tools
        assert llm.decoder_cache.models is None, "nothing is loaded for that"
    for flag in (True, False):
        llm = CoSDLLM(draft_model=model, assistant_model=other, is_function_calling_model=flag)
        assert llm.metadata.is_function_calling_model is flag


def test_templates_that_are_not_rendered_decide_nothing(save: Save) -> None:
    hermes, several = chat_model("hermes", seed=0), copy.deepcopy(tokenizer("chatml"))
    llm = CoSDLLM(draft_model=hermes, assistant_model=hermes, chat_template="{{ messages }}")
    assert llm.metadata.is_function_calling_model is False
    llm = CoSDLLM(draft_model=hermes, assistant_model=hermes, messages_to_prompt=str)
    assert llm.metadata.is_function_calling_model is False
    several.chat_template = {"default": TEMPLATES["chatml"], "tool_use": TEMPLATES["hermes"]}
    for draft in (named := LanguageModel(hermes.model, several), save(named)):
        assert CoSDLLM(draft_model=draft, assistant_model=hermes).metadata.is_function_calling_model is True


def test_metadata_follows_the_settings(plain: Any) -> None:
    for settings, told in (
        ({"max_tokens": 99}, {"num_output": 99}),
        ({"context_window": 777}, {"context_window": 777}),
        ({"is_chat_model": True}, {"is_chat_model": True}),
        ({"chat_template": "{{ messages }}"}, {"is_chat_model": True}),
        ({"is_function_calling_model": True}, {"is_function_calling_model": True}),
    ):
        changed = CoSDLLM(draft_model=plain.draft_model, assistant_model=plain.assistant_model, **settings)
        assert plain.metadata.model_dump().items() & told.items() != told.items()
        assert told.items() <= changed.metadata.model_dump().items()


def test_metadata_follows_a_model_that_is_exchanged(plain: Any, chat: Any) -> None:
    assert plain.metadata.is_chat_model is False
    plain.draft_model, plain.assistant_model = chat.draft_model, chat.assistant_model
    assert plain.metadata.is_chat_model is True
    assert plain.metadata.model_name == chat.metadata.model_name


def test_a_context_window_of_none_is_known_is_llama_indexs_default() -> None:
    endless = ascii_model(seed=0, eos_token_id=None)
    endless.__dict__["context_length"] = None
    llm = CoSDLLM(draft_model=endless, assistant_model=endless)
    assert llm.metadata.context_window == DEFAULT_CONTEXT_WINDOW


def test_a_given_context_window_of_zero_is_refused(pair: Any) -> None:
    with pytest.raises(InvalidOptionError, match="context_window=0"):
        CoSDLLM(draft_model=pair[0], assistant_model=pair[1], context_window=0)


def test_nothing_is_loaded_before_the_first_call(unloadable: None) -> None:
    llm = CoSDLLM(draft_model="no/such-model", assistant_model="none/either")
    assert llm.model_name == "no/such-model+none/either"
    assert llm.to_dict()["draft_model"] == "no/such-model"


def test_llama_index_counts_by_the_pairs_tokenizer_on_request(llm: Any) -> None:
    before = len(get_tokenizer()("Grüße aus Oslo"))
    Settings.tokenizer = llm.get_tokenizer()
    assert len(get_tokenizer()("Grüße aus Oslo")) == len("Grüße aus Oslo".encode()) != before
    (chunk, *others) = SentenceSplitter(chunk_size=40, chunk_overlap=0).split_text("a b c d e. " * 20)
    assert len(chunk) <= 40
    assert others


def test_the_payload_is_json_without_secrets(pair: Any) -> None:
    llm = CoSDLLM(
        draft_model="org/a", assistant_model=["org/b", pair[1]], token="hf_secret", context_window=9,
        is_chat_model=False, verifier="average", weight=0.3,
    )  # fmt: skip
    told = json.dumps(llm.to_payload())
    assert "hf_secret" not in told
    assert llm.to_payload()["draft_model"] == "org/a"
    assert llm.to_payload()["verifier"] == {"name": "average", "weight": 0.3}
    assert len(told) < 1000


# Dictionaries


TREE = TreeVerifier((Split("q", 0.5, 1, 2), Leaf(False), Leaf(True)))

CONFIGURED: list[dict[str, Any]] = [
    {},
    {"alpha": 0.3, "beta": 0.7},
    {"verifier": "average", "weight": 0.2},
    {"verifier": RuleVerifier(0.2, 0.9)},
    {"verifier": TREE},
    {"schedule": "fixed", "draft_length": 3, "batch_size": 2},
    {"schedule": FixedSchedule()},
    {"grammar": Grammar.regex("[a-z]{4,9}")},
    {"grammar": Grammar.lark('start: "yes" | "no"')},
    {"grammar": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
    {"dtype": "float32"},
    {"dtype": torch.float64, "device": torch.device("cpu")},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 4, "stop": ["x", "y"]},
    {"max_tokens": 9, "min_new_tokens": 2, "eos_token_id": [3, 88], "repetition_penalty": 1.5},
    {"chat_template": "{{ messages }}", "chat_template_kwargs": {"deep": {"er": [1]}}},
    {"system_prompt": "Be kind.", "context_window": 700, "is_chat_model": True, "logprobs": True},
    {"is_function_calling_model": True, "pydantic_program_mode": PydanticProgramMode.FUNCTION},
    {"pydantic_program_mode": "llm", "timeout": 60.0, "return_trace": True, "truncation": True},
]


@pytest.mark.parametrize("settings", CONFIGURED, ids=lambda each: "+".join(each) or "nothing")
def test_settings_come_back_from_their_dictionary_and_json(
    saved: dict[str, str], settings: dict[str, Any]
) -> None:
    llm = CoSDLLM(**saved, **settings)
    told = llm.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["class_name"] == "CoSDLLM"
    for again in (
        CoSDLLM.from_dict(told),
        CoSDLLM.from_json(llm.to_json()),
        load_llm(told),
        pickle.loads(pickle.dumps(llm)),
        copy.deepcopy(llm),
        copy.copy(llm),
        CoSDLLM.from_dict(json.loads(llm.model_dump_json())),
    ):
        assert type(again) is CoSDLLM
        assert again.to_dict() == told
        assert again.metadata == llm.metadata
        assert again._settings.identity == llm._settings.identity
    assert told["class_name"] == "CoSDLLM", "the dictionary is left as it was"


def test_what_comes_back_writes_the_same_text(saved: dict[str, str]) -> None:
    settings = {"verifier": TREE, "max_tokens": 12, "temperature": 1.0, "seed": 3, "dtype": torch.float64}
    llm = CoSDLLM(**saved, **settings)
    text = llm.complete("Hello").text
    for again in (load_llm(llm.to_dict()), pickle.loads(pickle.dumps(llm)), CoSDLLM.from_json(llm.to_json())):
        assert again.complete("Hello").text == text
        assert again._decoder().draft is llm._decoder().draft, "one copy of the weights"


def test_a_path_is_a_name(saved: dict[str, str]) -> None:
    llm = CoSDLLM(**{name: Path(path) for name, path in saved.items()})
    again = CoSDLLM.from_json(llm.to_json())
    assert again.to_dict() == llm.to_dict()
    assert again.metadata == llm.metadata


def test_extractors_come_back_with_their_model(saved: dict[str, str]) -> None:
    extractor = KeywordExtractor(llm=CoSDLLM(**saved, alpha=0.3), keywords=2)
    again = KeywordExtractor.from_dict(extractor.to_dict())
    assert isinstance(again.llm, CoSDLLM)
    assert again.llm.alpha == 0.3


def test_a_dictionary_of_living_models_says_why_it_cannot_come_back(llm: Any) -> None:
    told = json.loads(llm.to_json())
    for build in (CoSDLLM.from_dict, load_llm):
        with pytest.raises(InvalidOptionError, match=r"draft_model=.*give its hub id or path, or the model"):
            build(dict(told))
    again = CoSDLLM.from_dict(told, draft_model=llm.draft_model, assistant_model=llm.assistant_model)
    assert again.complete("Hello").text == llm.complete("Hello").text


def test_an_unknown_name_in_a_dictionary_is_refused(saved: dict[str, str]) -> None:
    with pytest.raises(InvalidOptionError, match="bananas"):
        CoSDLLM.from_dict({**CoSDLLM(**saved).to_dict(), "bananas": 1})


def test_no_form_of_the_settings_holds_the_token() -> None:
    llm = CoSDLLM(draft_model="org/a", assistant_model="org/b", token="hf_secret")
    told = (
        str(llm.to_dict()), llm.to_json(), llm.json(), str(llm.dict()), str(llm.model_dump()),
        llm.model_dump_json(), repr(llm), str(llm), str(llm._settings.identity),
    )  # fmt: skip
    for each in told:
        assert "hf_secret" not in each
    assert "token" not in llm.to_dict()
    with pytest.raises(InvalidOptionError) as caught:
        CoSDLLM(draft_model="a", assistant_model="b", token=["hf_secret"])
    assert "hf_secret" not in str(caught.value)


def test_functions_objects_and_weights_are_in_no_dump(llm: Any) -> None:
    told = llm.to_dict()
    for name in (
        "callback_manager",
        "rate_limiter",
        "decoder_cache",
        "messages_to_prompt",
        "completion_to_prompt",
    ):
        assert name not in told
    for each in (repr(llm), llm.to_json()):
        assert len(each) < 4000
        assert "Embedding" not in each
    assert "0x" not in llm.to_json(), "addresses differ from run to run"


def test_a_part_of_the_settings_can_be_dumped(saved: dict[str, str]) -> None:
    llm = CoSDLLM(**saved, alpha=0.3)
    assert llm.model_dump(include={"alpha"}) == {"alpha": 0.3, "class_name": "CoSDLLM"}
    assert "alpha" not in llm.model_dump(exclude={"alpha"})


# Keys of caches


def key(**settings: Any) -> str:
    return get_transformation_hash([TextNode(text="x", id_="x")], CoSDLLM(**settings))


KEPT = [Ends(), Ends()]


def test_a_pipelines_cache_tells_models_and_settings_apart(pair: Any) -> None:
    named = {"draft_model": "org/a", "assistant_model": "org/b"}
    settings: list[dict[str, Any]] = [
        named,
        {**named, "assistant_model": "org/c"},
        {**named, "assistant_model": ["org/b", "org/c"]},
        {"draft_model": "org/b", "assistant_model": "org/a"},
        {"draft_model": pair[0], "assistant_model": pair[1]},
        {"draft_model": pair[0], "assistant_model": ascii_model(seed=1, **WIDE)},
        *({**named, **each} for each in (
            {"alpha": 0.3}, {"beta": 0.3}, {"verifier": "draft"}, {"verifier": "average"},
            {"verifier": "average", "weight": 0.1}, {"verifier": TREE},
            {"verifier": TreeVerifier((Leaf(True),))},
            {"max_tokens": 3}, {"temperature": 0.5}, {"seed": 3}, {"stop": ["x"]}, {"system_prompt": "x"},
            {"grammar": Grammar.regex("a")}, {"grammar": Grammar.regex("b")}, {"dtype": "float16"},
            {"chat_template": "x"}, {"logits_processor": KEPT[:1]}, {"logits_processor": KEPT[1:]},
            {"revision": "x"}, {"draft_length": 2},
        )),
    ]  # fmt: skip
    keys = [key(**each) for each in settings]
    assert len(set(keys)) == len(settings)
    assert [key(**each) for each in settings] == keys, "the same settings are the same key"


def test_a_tree_in_a_file_is_told_by_its_nodes(tmp_path: Any) -> None:
    """The file may change, and what was cached with another tree must not be found."""
    settings = {"verifier": "tree", "tree_path": str(tmp_path / "tree.json")}
    named = {"draft_model": "org/a", "assistant_model": "org/b", **settings}
    TreeVerifier((Leaf(True),)).save(settings["tree_path"])
    before, told = key(**named), CoSDLLM(**named).to_dict()
    TreeVerifier((Leaf(False),)).save(settings["tree_path"])
    assert key(**named) != before
    again = CoSDLLM.from_dict(told)
    assert again.verifier == TreeVerifier((Leaf(True),))
    assert again.to_dict() == told


# Pickles and copies


def test_a_pickle_of_living_models_says_why_not_and_harms_nothing(llm: Any) -> None:
    expected = llm.complete("Hello").text
    before = dict(llm.__dict__)
    for _ in range(2):
        with pytest.raises(InvalidOptionError, match="a model given as an object cannot be pickled"):
            pickle.dumps(llm)
    assert llm.__dict__ == before
    assert llm.complete("Hello").text == expected
    assert llm.messages_to_prompt is not None


def test_a_pickle_of_names_is_small_and_harms_nothing(saved: dict[str, str]) -> None:
    llm = CoSDLLM(**saved, max_tokens=6, messages_to_prompt=str)
    expected = llm.complete("Hello").text
    before = dict(llm.__dict__)
    data = pickle.dumps(llm)
    assert len(data) < 10_000
    assert llm.__dict__ == before
    again = pickle.loads(data)
    assert again.messages_to_prompt is str, "functions travel, which dictionaries do not hold"
    for method in (again.complete, llm.complete):
        assert method("Hello").text == expected
    assert again.rate_limiter is None
    assert again.callback_manager is not llm.callback_manager


def test_a_function_without_a_name_keeps_from_pickling_but_harms_nothing(saved: dict[str, str]) -> None:
    llm = CoSDLLM(**saved, max_tokens=6, completion_to_prompt=lambda text: f"[{text}]")
    before = dict(llm.__dict__)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(llm)
    assert llm.__dict__ == before
    assert llm.complete("Hello").text


def test_copies_share_the_weights_and_nothing_else(llm: Any) -> None:
    expected = llm.complete("Hello").text
    for other in (copy.deepcopy(llm), copy.copy(llm), llm.model_copy(), copy.deepcopy({"a": [llm]})["a"][0]):
        assert other._decoder().draft.model is llm._decoder().draft.model
        other.max_tokens = 3
        other.system_prompt = "Be kind."
        assert llm.max_new_tokens == 16
        assert llm.complete("Hello").text == expected


def test_instances_over_the_same_paths_share_the_weights_with_langchains_classes() -> None:
    draft, assistant = load_pair()
    named = {
        "draft_model": draft.source, "assistant_model": assistant.source, "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    ours = CoSDLLM(**named, max_tokens=4)
    ours._decoder()
    before = _weights_in_memory()
    for other in (CoSDLLM(**named), LangChainCoSDLLM(**named, max_tokens=4), ChatCoSD(**named)):
        for mine, its in zip(ours._decoder().models, other._decoder().models, strict=True):
            assert mine.model is its.model
    assert ours._decoder().draft is draft
    prompt = "Q: capital of France? A:"
    assert ours.complete(prompt).text == LangChainCoSDLLM(**named, max_tokens=4).invoke(prompt)
    assert _weights_in_memory() <= before


def _weights_in_memory() -> int:
    """Bytes of all parameters that are alive, each storage once."""
    gc.collect()
    alive = [each for each in gc.get_objects() if type(each) is torch.nn.Parameter]
    return sum({each.data_ptr(): each.nbytes for each in alive}.values())


def test_the_bundled_pair_answers_what_neither_model_can() -> None:
    draft, assistant = load_pair()
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, max_tokens=48)
    questions = held_out("both", 20)
    answers = llm.complete_batch([question.prompt for question in questions])
    assert sum(each.text == question.answer for each, question in zip(answers, questions, strict=True)) >= 17


def test_a_pipeline_finds_what_the_same_model_made_and_nothing_else(pair: Any) -> None:
    cache = IngestionCache()

    def run(**settings: Any) -> int:
        llm = CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=3, **settings)
        pipeline = IngestionPipeline(
            transformations=[KeywordExtractor(llm=llm, show_progress=False)], cache=cache
        )
        with counted_passes(pair[0]) as passes:
            pipeline.run(nodes=[TextNode(text="The tower is high.", id_="x")], show_progress=False)
        return len(passes)

    assert run() > 0
    assert run() == 0, "the same again"
    assert run(alpha=0.9) > 0
    assert run(system_prompt="x") > 0


class Unrelated(BaseModel):
    """Pydantic's ways in."""

    llm: Any


def test_it_can_be_a_field_of_another_model(llm: Any) -> None:
    assert Unrelated(llm=llm).llm is llm
    assert Unrelated(llm=llm).model_dump()["llm"]["class_name"] == "CoSDLLM"


def test_a_copy_has_settings_of_its_own(chat: CoSDLLM) -> None:
    other = copy.deepcopy(chat)
    other.chat_template_kwargs["z"] = 1
    assert chat.chat_template_kwargs == {}


def test_the_frameworks_name_for_max_new_tokens_is_read_and_written(plain: CoSDLLM) -> None:
    plain.max_tokens = 7
    assert plain.max_tokens == plain.max_new_tokens == plain.metadata.num_output == 7


def test_what_is_set_during_a_stream_is_for_later_calls(plain: CoSDLLM) -> None:
    stream = plain.stream_complete("Hello", max_tokens=12, eos_token_id=[])
    other = plain.stream_complete("Hello", eos_token_id=[])
    plain.max_tokens = 3
    *_, last = stream
    assert last.raw["usage"]["completion_tokens"] == 12
    *_, last = other
    assert last.raw["usage"]["completion_tokens"] == 16
    assert plain.complete("Hello", eos_token_id=[]).raw["usage"]["completion_tokens"] == 3


def test_events_never_load_a_model(tmp_path: Path) -> None:
    llm = CoSDLLM(draft_model=str(tmp_path / "a"), assistant_model=str(tmp_path / "b"))
    assert llm.to_payload()["model_name"].endswith("b")


def test_dumps_take_fields_by_name(plain: CoSDLLM) -> None:
    assert "stop" not in plain.model_dump(exclude={"stop": True})
    assert plain.model_dump(include={"alpha": True}) == {"alpha": 0.5, "class_name": "CoSDLLM"}
    assert None not in plain.model_dump(exclude_none=True).values()
