"""Claim: several assistants, and a verifier for each, mean the same at every door: one text, one trace."""

import asyncio
import json
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.loading import load_llm

from cosd_core import (
    AverageVerifier,
    Chat,
    ConfidenceVerifier,
    CoSDDecoder,
    EvaluationFileError,
    Generation,
    InvalidOptionError,
    LanguageModel,
    Leaf,
    Observations,
    PanelVerifier,
    RuleVerifier,
    SpeculativeVerifier,
    Split,
    TreeVerifier,
    Verifier,
    explain,
    observe,
    read_settings,
)
from cosd_core.demo import KINDS, held_out, load_pair
from cosd_core.evaluation import make_methods, make_report, possible_methods, read_method, run, unasked_task
from cosd_core.evaluation.answers import AnswerFile
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.frontend.serialization import to_jsonable
from cosd_core.frontend.settings import Settings
from cosd_core.verifiers import AssistantVerifier, DraftVerifier, make_verifier
from examples.bundled_pairs import load_chat_pair
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.chats import chat_model
from tests.grids import covering
from tests.models import ascii_model, byte_tokenizer
from tests.reference import _logits
from tests.test_by_eye import UNSURE, model, words, write, writers
from tests.test_cli import IRON, cosd, lessons, models, pair  # noqa: F401 - fixtures

MODELS = tuple(ascii_model(seed=seed, eos_token_id=None) for seed in range(4))
DRAFT, ASSISTANTS = MODELS[0], MODELS[1:]
TREE = TreeVerifier((Split("p", 0.6, 1, 4), Split("q", 0.2, 2, 3), Leaf(False), Leaf(True), Leaf(False)))
EAGER = RuleVerifier(alpha=0.9, beta=0.1)
PANEL = PanelVerifier((EAGER, TREE, RuleVerifier(alpha=0.3)))
"""Under it each of the three writes something (a test holds it to that)."""

PROMPTS = ["The capital of France", "1 + 1 =", "naïve", "Q"]
HOW: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 16},
    "sampled": {"max_new_tokens": 16, "temperature": 0.9, "top_k": 40, "seed": 5},
}


def trace(generation: Generation) -> list[tuple[Any, ...]]:
    """What became of every token; whom it was asked about depends on the schedule, hence on the clock."""
    return [(each.id, each.text, each.source, each.draft_id) for each in generation.tokens]


# Judged by eye: models that look at the last word alone

DOG = model("dog", the={"dog": 0.6, "cat": 0.4}, dog={"sat": 1.0}, fish={"sat": 1.0}, sat={"<eos>": 1.0})
FISH = model("fish", the={"fish": 0.7, "cat": 0.3}, dog={"sat": 1.0}, fish={"sat": 1.0}, sat={"<eos>": 1.0})
NEVER, WHERE_UNSURE = DraftVerifier(), RuleVerifier()


class TestEachIsJudgedByItsOwn:
    """Of `the`, the draft makes cat (0.4), one assistant dog (0.6), the other fish (0.7)."""

    @pytest.mark.parametrize(
        ("panel", "word", "writer"),
        [
            ((WHERE_UNSURE, WHERE_UNSURE), "fish", 1),
            ((WHERE_UNSURE, NEVER), "dog", 0),
            ((NEVER, WHERE_UNSURE), "fish", 1),
            ((NEVER, NEVER), "cat", None),
            ((RuleVerifier(alpha=0.3), WHERE_UNSURE), "fish", 1),
            ((WHERE_UNSURE, RuleVerifier(alpha=0.3)), "dog", 0),
            ((WHERE_UNSURE, RuleVerifier(beta=1.8)), "dog", 0),  # 0.7 is not above 1.8 x 0.4
            ((RuleVerifier(beta=1.4), RuleVerifier(beta=1.8)), "dog", 0),  # 0.6 is above 1.4 x 0.4
            ((TreeVerifier((Split("q", 0.65, 1, 2), Leaf(False), Leaf(True))), NEVER), "cat", None),
            ((NEVER, TreeVerifier((Split("q", 0.65, 1, 2), Leaf(False), Leaf(True)))), "fish", 1),
        ],
    )
    def test_a_member_judges_its_assistant(
        self, panel: tuple[ConfidenceVerifier, ...], word: str, writer: int | None
    ) -> None:
        generation = write(UNSURE, DOG, FISH, verifier=PanelVerifier(panel))
        assert words(generation)[0] == word
        assert writers(generation)[0] == writer

    def test_members_follow_their_places_and_not_the_models(self) -> None:
        panel = PanelVerifier((WHERE_UNSURE, NEVER))
        assert words(write(UNSURE, FISH, DOG, verifier=panel))[0] == "fish"
        assert words(write(UNSURE, DOG, FISH, verifier=panel))[0] == "dog"

    def test_nobody_is_asked_where_no_member_could_replace(self) -> None:
        careful = PanelVerifier((RuleVerifier(alpha=0.3), RuleVerifier(alpha=0.35)))
        generation = CoSDDecoder(UNSURE, [DOG, FISH], verifier=careful).generate("the", max_new_tokens=6)
        assert (words(generation), generation.stats.assistant_passes) == (["cat", "sat", "<eos>"], 0)
        one_asks = PanelVerifier((RuleVerifier(alpha=0.3), RuleVerifier(alpha=0.41)))
        assert CoSDDecoder(UNSURE, [DOG, FISH], verifier=one_asks).generate("the").stats.assistant_passes > 0

    def test_the_reason_is_that_of_the_member_that_judged(self) -> None:
        panel = PanelVerifier((RuleVerifier(alpha=0.45, beta=0.1), RuleVerifier(alpha=0.42, beta=0.2)))
        page = explain.to_html(write(UNSURE, DOG, FISH, verifier=panel))
        assert "p = 0.40 &lt; alpha = 0.42" in page
        assert "p = 0.40 &lt; alpha = 0.45" not in page, "fish is surer, so the second verifier decided"
        kept = write(UNSURE, DOG, FISH, verifier=PanelVerifier((NEVER, RuleVerifier(alpha=0.2))))
        assert "not below alpha = 0.2" in explain.to_html(kept)


# Equivalences


@pytest.mark.parametrize(
    ("verifier", "how"),
    covering(product([RuleVerifier(), EAGER, TREE, AssistantVerifier(), DraftVerifier()], HOW)),
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_a_panel_of_equal_members_is_the_one_verifier(verifier: ConfidenceVerifier, how: str) -> None:
    panel = PanelVerifier([verifier] * 3)
    for parts in ({}, {"schedule": "fixed", "draft_length": 3, "batch_size": 2}):
        one, several = (
            CoSDDecoder(DRAFT, ASSISTANTS, verifier=each, **parts).generate(PROMPTS, **HOW[how])
            for each in (verifier, panel)
        )
        assert list(map(trace, one)) == list(map(trace, several))
        assert [each.text for each in one] == [each.text for each in several]


def by_hand(prompt: str, length: int) -> tuple[list[int], list[int | None]]:
    """The greedy text under :data:`PANEL`, by a whole pass of every model at every position."""

    def best(model: LanguageModel, ids: tuple[int, ...]) -> tuple[int, float]:
        logits = _logits(model, ids)
        return int(logits.argmax()), float(1 / np.exp(logits - logits.max()).sum())

    fires: list[Callable[[float, float], bool]] = [
        lambda p, q: p < 0.9 and q > 0.1 * p,
        lambda p, q: p <= 0.6 and q > 0.2,
        lambda p, q: p < 0.3 and q > 0.5 * p,
    ]
    ids, wrote = tuple(DRAFT.encode(prompt)), []
    begun = len(ids)
    for _ in range(length):
        x, p = best(DRAFT, ids)
        rivals = [(at, *best(each, ids)) for at, each in enumerate(ASSISTANTS)]
        fired = [(q, -at, y) for at, y, q in rivals if y != x and fires[at](p, q)]
        _, writer, token = max(fired, default=(0.0, None, x))
        ids += (token,)
        wrote.append(None if writer is None else -writer)
    return list(ids[begun:]), wrote


def test_the_text_is_that_of_a_plain_computation() -> None:
    expected = [by_hand(prompt, 16) for prompt in PROMPTS]
    assert {writer for _, wrote in expected for writer in wrote} == {None, 0, 1, 2}, "all of them write"
    for parts in ({}, {"schedule": "fixed", "draft_length": 5}, {"draft_length": 1}):
        decoder = CoSDDecoder(DRAFT, ASSISTANTS, verifier=PANEL, **parts)
        for generation, (ids, wrote) in zip(
            decoder.generate(PROMPTS, max_new_tokens=16), expected, strict=True
        ):
            assert list(generation.token_ids) == ids
            assert writers(generation) == wrote


@pytest.mark.parametrize("how", HOW)
def test_streams_and_tasks_write_what_generate_writes(how: str) -> None:
    decoder = CoSDDecoder(DRAFT, ASSISTANTS, verifier=PANEL)
    expected = [decoder.generate(prompt, **HOW[how]) for prompt in PROMPTS]
    assert [each.text for each in decoder.generate(PROMPTS, **HOW[how])] == [each.text for each in expected]
    assert "".join(chunk.text for chunk in decoder.stream(PROMPTS[0], **HOW[how])) == expected[0].text

    async def at_once() -> list[Generation]:
        return await asyncio.gather(*(decoder.agenerate(prompt, **HOW[how]) for prompt in PROMPTS))

    assert list(map(trace, asyncio.run(at_once()))) == list(map(trace, expected))


@pytest.mark.parametrize("seat", [0, 1, 2])
def test_an_assistant_that_may_never_replace_changes_nothing(seat: int) -> None:
    others = [each for at, each in enumerate(ASSISTANTS) if at != seat]
    verifiers: list[ConfidenceVerifier] = [EAGER] * 3
    verifiers[seat] = NEVER
    with_it = CoSDDecoder(DRAFT, ASSISTANTS, verifier=verifiers)
    without = CoSDDecoder(DRAFT, others, verifier=EAGER)
    for how in HOW.values():
        # Sampled, each assistant draws numbers of its own, by its place: so those before the seat only.
        if "seed" not in how or seat == 2:
            expected = without.generate(PROMPTS, **how)
            assert list(map(trace, with_it.generate(PROMPTS, **how))) == list(map(trace, expected))


def test_the_same_holds_for_models_of_different_tokenizers() -> None:
    facts, arithmetic = load_pair()
    _, talker = load_chat_pair()
    assert len(talker.tokenizer) != len(facts.tokenizer)
    prompts = [question.prompt for kind in KINDS for question in held_out(kind, 4)]

    def texts(assistants: list[LanguageModel], verifier: Any) -> list[str]:
        written = CoSDDecoder(facts, assistants, verifier=verifier).generate(prompts, max_new_tokens=32)
        assert any(each.stats.replaced for each in written)
        return [each.text for each in written]

    both = [arithmetic, talker]
    assert texts(both, [EAGER, EAGER]) == texts(both, EAGER)
    assert texts(both, [EAGER, NEVER]) == texts([arithmetic], EAGER)
    assert texts(both, [NEVER, EAGER]) == texts([talker], EAGER)


def test_likelihoods_are_judged_by_the_same_members() -> None:
    ids = DRAFT.encode(PROMPTS[0])
    text = Continuation((tuple(ids),) * 4, tuple(by_hand(PROMPTS[0], 12)[0]))
    panel, rule = (
        log_likelihoods(CoSDDecoder(DRAFT, ASSISTANTS, verifier=verifier), [text])[0]
        for verifier in (PANEL, EAGER)
    )
    assert panel.greedy
    assert not math.isclose(panel.log, rule.log)


def test_where_all_agree_assistants_alone_are_scored_by_the_surest_of_them() -> None:
    facts, arithmetic = load_pair()
    prompt, answer = tuple(facts.encode("Q: capital of France? A:")), tuple(facts.encode(" Paris"))
    text = Continuation((prompt,) * 3, answer)
    surest, every, draft = (
        log_likelihoods(CoSDDecoder(facts, [arithmetic, arithmetic], verifier=verifier), [text])[0]
        for verifier in (AssistantVerifier(), [AssistantVerifier()] * 2, DraftVerifier())
    )
    assert every == surest
    assert every.log < draft.log


# What cannot be


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (["rule"], "1 verifiers for 2 assistants"),
        (["rule"] * 3, "3 verifiers for 2 assistants"),
        ([], "one per assistant"),
        (["rule", "average"], "a list of verifiers holds 'average'"),
        (["speculative", "rule"], "a list of verifiers holds 'speculative'"),
        (["rule", ["rule", "rule"]], "a list of verifiers holds 'panel'"),
        (["rule", "vote"], "'vote'"),
        (["rule", 3], "3"),
        (["rule", "tree"], "needs a tree"),
        ([{"name": "rule", "gamma": 1}, "rule"], "gamma"),
        ({"name": "panel", "members": "rule"}, "should be a list of verifiers"),
        ({"name": "panel"}, "members"),
        ("speculative", "takes one assistant, not 2"),
    ],
)
def test_what_cannot_judge_is_refused_in_words_before_anything_is_loaded(verifier: Any, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Settings(draft_model="no/such", assistant_model=["none/either", "nor/this"], verifier=verifier)


def test_the_decoder_refuses_the_same() -> None:
    for verifier in (["rule"], PanelVerifier([EAGER] * 4)):
        with pytest.raises(InvalidOptionError, match="verifiers for 3 assistants"):
            CoSDDecoder(DRAFT, ASSISTANTS, verifier=verifier)
    for member in (AverageVerifier(), SpeculativeVerifier(), "rule", PANEL):
        with pytest.raises(InvalidOptionError, match="a list of verifiers holds"):
            PanelVerifier((EAGER, member))
    with pytest.raises(InvalidOptionError, match=r"alpha=0.3 is a setting of verifier=\"rule\""):
        Settings(draft_model="a", assistant_model=["b", "c"], verifier=["rule", "draft"], alpha=0.3)


# How it travels


class Mine(ConfidenceVerifier):
    """A user's own."""

    name = "mine"

    def replaces(self, p: float, q: float) -> bool:
        return q > p


def test_a_panel_comes_back_from_json() -> None:
    told = json.loads(json.dumps(PANEL.to_dict()))
    assert make_verifier(told) == PANEL == make_verifier(list(PANEL.members))
    assert hash(make_verifier(told)) == hash(PANEL)
    assert to_jsonable(PANEL) == told
    assert make_verifier([each.to_dict() for each in PANEL.members]) == PANEL
    assert pickle.loads(pickle.dumps(PANEL)) == PANEL


def test_members_of_ones_own_are_told_apart_by_caches() -> None:
    one, two = (PanelVerifier((EAGER, Mine())) for _ in range(2))
    assert to_jsonable(one) != to_jsonable(two)
    assert to_jsonable(one) == to_jsonable(one)
    with pytest.raises(InvalidOptionError, match="mine"):
        make_verifier(to_jsonable(one))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The models as folders, by the names that constructors have for them."""
    folder = tmp_path_factory.mktemp("models")
    for each in MODELS:
        each.model.save_pretrained(folder / each.name)
        byte_tokenizer().save_pretrained(folder / each.name)
    draft, *assistants = (str(folder / each.name) for each in MODELS)
    return {"draft_model": draft, "assistant_model": assistants}


@pytest.fixture
def trees(tmp_path: Path) -> list[str]:
    """A file for every assistant; together they are a panel."""
    paths = [tmp_path / f"{at}.json" for at in range(3)]
    for path, threshold in zip(paths, (0.2, 0.5, 0.8), strict=True):
        TreeVerifier((Split("q", threshold, 1, 2), Leaf(False), Leaf(True))).save(path)
    return list(map(str, paths))


GIVEN: dict[str, Any] = {
    "names": ["rule", "draft", "assistant"],
    "values": list(PANEL.members),
    "dictionaries": [each.to_dict() for each in PANEL.members],
    "panel": PANEL,
}


def expected_text(prompt: str, verifier: Verifier, **options: Any) -> str:
    return CoSDDecoder(DRAFT, ASSISTANTS, verifier=verifier).generate(prompt, **options).text


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("kind", [LangChainLLM, LlamaIndexLLM, ChatCoSD])
def test_frameworks_take_lists_and_travel(kind: Any, given: str, saved: dict[str, Any]) -> None:
    llm = kind(**saved, verifier=GIVEN[given], max_tokens=12)
    panel = make_verifier(GIVEN[given])
    assert llm._settings.method()["verifier"] == panel
    assert llm.model_name.count("+") == 3
    assert llm._settings.identity["verifier"] == panel.to_dict()
    again = pickle.loads(pickle.dumps(llm))
    assert again._settings.identity == llm._settings.identity
    assert again._decoder() is not llm._decoder()
    assert again._decoder().verifier == panel
    assert again._decoder().assistants == llm._decoder().assistants, "one copy of the weights"


def test_langchain_writes_the_cores_text_in_every_way(saved: dict[str, Any]) -> None:
    options = {"temperature": 0.9, "seed": 2}
    llm = LangChainLLM(**saved, verifier=list(PANEL.members), max_tokens=16, return_trace=True, **options)
    expected = [expected_text(prompt, PANEL, max_new_tokens=16, **options) for prompt in PROMPTS]
    assert llm.batch(PROMPTS) == expected
    assert "".join(llm.stream(PROMPTS[0])) == expected[0]
    assert asyncio.run(llm.abatch(PROMPTS)) == expected
    info = llm.generate(PROMPTS[:1]).generations[0][0].generation_info
    assert info["verifier"] == PANEL.to_dict()
    assert {token["assistant_index"] for token in info["trace"]["tokens"]} - {None} <= {0, 1, 2}
    assert json.loads(json.dumps(info["trace"]["tokens"])) == info["trace"]["tokens"]


def test_a_verifier_per_assistant_for_one_call(saved: dict[str, Any]) -> None:
    llm = LangChainLLM(**saved, max_tokens=12)
    assert llm.invoke(PROMPTS[0], verifier=PANEL) == expected_text(PROMPTS[0], PANEL, max_new_tokens=12)
    with pytest.raises(InvalidOptionError, match="2 verifiers for 3 assistants"):
        llm.invoke(PROMPTS[0], verifier=["rule", "draft"])


def test_llama_index_writes_the_cores_text_and_comes_back(saved: dict[str, Any]) -> None:
    llm = LlamaIndexLLM(**saved, verifier=["rule", TREE, {"name": "draft"}], max_tokens=16)
    expected = expected_text(PROMPTS[0], llm._settings.method()["verifier"], max_new_tokens=16)
    told = json.loads(json.dumps(llm.to_dict()))
    for each in (llm, load_llm(told), LlamaIndexLLM.from_json(llm.to_json())):
        assert each.complete(PROMPTS[0]).text == expected
        assert asyncio.run(each.acomplete(PROMPTS[0])).text == expected
        assert [*each.stream_complete(PROMPTS[0])][-1].text == expected
    assert len(told["assistant_model"]) == 3


@pytest.mark.parametrize("kind", [LangChainLLM, LlamaIndexLLM])
def test_a_tree_file_per_assistant(kind: Any, saved: dict[str, Any], trees: list[str]) -> None:
    panel = PanelVerifier(list(map(TreeVerifier.load, trees)))
    llm = kind(**saved, verifier="tree", tree_path=trees)
    assert llm._decoder().verifier == panel
    assert llm._settings.identity["verifier"] == panel.to_dict()
    with pytest.raises(InvalidOptionError, match="2 verifiers for 3 assistants"):
        kind(**saved, verifier="tree", tree_path=trees[:2])
    with pytest.raises(InvalidOptionError, match="tree_path"):
        kind(**saved, tree_path=trees)
    if kind is LlamaIndexLLM:
        told = llm.to_dict()
        Path(trees[1]).write_text("{}", encoding="utf-8")
        assert load_llm(told)._settings.method()["verifier"] == panel, (
            "what is told holds the nodes, so the file may change"
        )


@pytest.mark.parametrize(
    "method",
    [
        {"verifier": GIVEN["names"]},
        {"verifier": GIVEN["dictionaries"]},
        {"verifier": PANEL.to_dict(), "calibration": [1.0, 2.0, 1.5, 0.7]},
        {"verifier": "tree", "tree_path": 3},
    ],
)
def test_settings_files_hold_a_verifier_per_assistant(
    method: dict[str, Any], saved: dict[str, Any], trees: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "settings.json"
    method = {name: trees if value == 3 else value for name, value in method.items()}
    file.write_text(json.dumps(method), encoding="utf-8")
    assert read_settings(file) == method, "models are named elsewhere"
    assert len(Settings(**saved, **read_settings(file)).decoder().verifier.members) == 3
    file.write_text(json.dumps({**saved, **method}), encoding="utf-8")
    assert Settings(**read_settings(file)) == Settings(**saved, **method)
    file.write_text(json.dumps({**method, "assistant_model": ["b", "c"]}), encoding="utf-8")
    with pytest.raises(EvaluationFileError, match="3 verifiers for 2 assistants"):
        read_settings(file)


# Chats


TALK = [{"role": "user", "content": "The quick brown fox?"}]


def test_in_a_chat_every_assistant_has_its_own_template_and_its_own_verifier() -> None:
    templates = ("chatml", "strict", "none", "no system")
    chat_models = [chat_model(each, seed=seed) for seed, each in enumerate(templates)]
    draft, *assistants = chat_models
    decoder = CoSDDecoder(draft, assistants, verifier=PANEL)
    generation = decoder.generate(Chat(TALK), max_new_tokens=16)
    equal = CoSDDecoder(draft, assistants, verifier=[EAGER] * 3).generate(Chat(TALK), max_new_tokens=16)
    assert trace(equal) == trace(
        CoSDDecoder(draft, assistants, verifier=EAGER).generate(Chat(TALK), max_new_tokens=16)
    )
    named = {"draft_model": draft, "assistant_model": assistants, "verifier": PANEL, "max_tokens": 16}
    langchain, asked = ChatCoSD(**named), [HumanMessage(TALK[0]["content"])]
    answers = [langchain.invoke(asked).text, asyncio.run(langchain.ainvoke(asked)).text]
    answers.append("".join(chunk.text for chunk in langchain.stream(asked)))
    llama_index = LlamaIndexLLM(**named)
    answers.append(llama_index.chat([ChatMessage(**each) for each in TALK]).message.content)
    assert set(answers) == {generation.text}


# Trees of their own


def test_a_tree_per_assistant_is_learned_from_its_own_positions() -> None:
    alone = [
        CoSDDecoder(each, each, verifier="draft").generate(PROMPTS, max_new_tokens=12) for each in MODELS
    ]
    data = [(prompt, each.text) for texts in alone for prompt, each in zip(PROMPTS, texts, strict=True)]
    seen = observe(MODELS, data)
    for at, each in enumerate(seen.pairs()):
        pair_alone = observe([DRAFT, ASSISTANTS[at]], data)
        assert each.names == pair_alone.names
        for name in ("predicted", "partitions", "gaps"):
            assert np.allclose(getattr(each, name), getattr(pair_alone, name), atol=1e-5)
        assert TreeVerifier.fit(each, depths=[2], leaves=[1]).about["pair"] == [
            DRAFT.name,
            ASSISTANTS[at].name,
        ]
    assert isinstance(seen.pairs()[0], Observations)


# The command line


def three(pair: tuple[str, str]) -> list[str]:  # noqa: F811
    """The facts model drafts; the arithmetic model and the facts model assist."""
    return [*models(pair), "--assistant", pair[0]]


def test_the_command_line_takes_a_verifier_per_assistant(cosd, pair, tmp_path: Path) -> None:  # noqa: F811
    facts, arithmetic = load_pair()
    for flags, verifier in (
        (["--verifier", "rule", "--verifier", "draft"], ["rule", "draft"]),
        (["--verifier", "draft", "--verifier", "rule"], ["draft", "rule"]),
        (["--verifier", "rule"], "rule"),
    ):
        expected = CoSDDecoder(facts, [arithmetic, facts], verifier=verifier).generate(IRON).text
        assert cosd("generate", *three(pair), *flags, IRON).out == expected + "\n"
    refused = cosd("generate", *three(pair), *["--verifier", "rule"] * 3, IRON)
    assert (refused.code, refused.out) == (2, "")
    assert "3 verifiers for 2 assistants" in refused.err


def test_explanations_name_the_assistants(cosd, pair, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    output = cosd("generate", *three(pair), "--explain", "--html", str(page), IRON)
    assert "assistant 1 (arithmetic)" in output.out
    assert "assistant 1 (arithmetic)" in page.read_text(encoding="utf-8")
    assert "assistant 1" not in cosd("generate", *models(pair), "--explain", IRON).out, "there is only one"


def test_names_of_models_are_told_as_they_are_and_do_no_harm() -> None:
    generation = write(UNSURE, DOG, FISH)
    assert generation.models == (UNSURE.name, DOG.name, FISH.name)
    assert generation.to_dict()["models"] == [UNSURE.name, DOG.name, FISH.name]

    def page(*names: str) -> str:
        return explain.to_html(replace(generation, models=names))

    assert "assistant 2 (&lt;b&gt;fish&lt;/b&gt;)" in page("org/draft", "org/dog", "<b>fish</b>")
    assert "<b>fish</b>" not in page("org/draft", "org/dog", "<b>fish</b>")
    assert "assistant 2 (org/fish)" in page("a", "b", "org/fish")
    assert "assistant 2 (fish)" in page("a", "b", "/some/where/fish")


def test_the_figures_tell_of_every_member() -> None:
    page = explain.to_html(write(UNSURE, DOG, FISH, verifier=["rule", "draft"]))
    assert "1: rule, alpha 0.5, beta 0.5; 2: draft" in page


def test_a_tree_per_assistant_is_learned_and_used(cosd, pair, lessons: str, tmp_path: Path) -> None:  # noqa: F811
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    learning = ["train-tree", *three(pair), "--data", lessons, "--calibrate"]
    output = cosd(*learning, "--out", str(one), "--out", str(other))
    assert output.code == 0
    learned = [TreeVerifier.load(path).about for path in (one, other)]
    assert [Path(about["pair"][1]).name for about in learned] == ["arithmetic", "facts"]
    flags = output.out.strip().splitlines()[-1].split("use it with ")[1].split()
    assert flags[:6] == ["--verifier", "tree", "--tree-path", str(one), "--tree-path", str(other)]
    temperatures = [float(each) for each in flags[7::2]]
    assert temperatures == [*learned[0]["calibration"], learned[1]["calibration"][1]]
    facts, arithmetic = load_pair()
    panel = PanelVerifier((TreeVerifier.load(one), TreeVerifier.load(other)))
    expected = CoSDDecoder(facts, [arithmetic, facts], verifier=panel, calibration=temperatures).generate(
        IRON
    )
    assert cosd("generate", *three(pair), *flags, IRON).out == expected.text + "\n"
    refused = cosd(*learning, *["--out", str(one)] * 3)
    assert refused.code == 2
    assert "3 times --out for 2 assistants" in refused.err


def test_bench_and_tune_take_several(cosd, pair, tmp_path: Path) -> None:  # noqa: F811
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Q: 3+4? A:\n", encoding="utf-8")
    output = cosd(
        "bench", *three(pair), "--verifier", "rule", "--verifier", "draft", "--prompts", str(prompts),
        "--repeats", "1", "--max-new-tokens", "8", "--batch-size", "2", "--json",
    )  # fmt: skip
    names = [row["method"] for row in json.loads(output.out)]
    assert "panel, adaptive" in names
    assert "speculative" not in names
    tuned = cosd(
        "tune", *three(pair), "--task", "demo", "--questions", "3", "--folds", "3", "--alpha", "0.5",
        "--beta", "0.5", "--weight", "0.5", "--out", str(tmp_path / "tuned"), "--json",
    )  # fmt: skip
    assert tuned.code == 0, tuned.err
    lines = json.loads(tuned.out)["lines"]
    assert {line["verifier"] for line in lines} == {"draft", "rule", "tree", "average"}
    assert {line["draft"] for line in lines if line["verifier"] == "rule"} == {0, 1, 2}


def test_evaluation_asks_every_assistant_alone(tmp_path: Path) -> None:
    facts, arithmetic = load_pair()
    three_models = CoSDDecoder(facts, [arithmetic, facts])
    settings = {"draft_model": facts, "assistant_model": [arithmetic, facts], "calibration": [1.0, 2.0, 3.0]}
    names = possible_methods(settings)
    assert names == ["draft", "assistant", "average", "rule"]
    methods = make_methods(names, settings)
    assert [each.name for each in methods] == [
        "draft", "assistant 1", "assistant 2", "average (0.5)", "rule (0.5, 0.5)"
    ]  # fmt: skip
    assert [each.single for each in methods] == ["draft", "assistant 1", "assistant 2", None, None]
    assert methods[2].parts["calibration"] == (1.0, 3.0)
    task = unasked_task(4)
    outcomes = run(three_models, methods, [task], answers=AnswerFile(tmp_path / "answers.jsonl"))
    alone = CoSDDecoder(arithmetic, facts, verifier="draft")
    texts = [alone.generate(item.prompt, **task.options).text for item in task.items]
    assert [answer.text for answer in outcomes[1].answers] == texts
    best = max(sum(outcome.right) for outcome in outcomes[:3])
    report = make_report(outcomes, {})
    line = report.line("rule (0.5, 0.5)", *report.columns[-1])
    single = {outcome.method.single: sum(outcome.right) for outcome in outcomes[:3]}
    assert line.best_single is not None
    assert single[line.best_single] == best


def test_a_settings_file_of_several_is_a_method(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    named = ["a", "b", "c"]
    said = {"draft_model": "a", "assistant_model": ["b", "c"], "verifier": ["rule", "draft"]}
    file.write_text(json.dumps(said), encoding="utf-8")
    method = read_method(file, {}, pair=named)
    assert (method.name, method.swapped) == ("mine", False)
    assert method.verifier == PanelVerifier((RuleVerifier(), DraftVerifier()))
    assert json.loads(json.dumps(method.describe()))["verifier"]["name"] == "panel"
    for others in (["b", "a", "c"], ["a", "c", "b"], ["a", "b"]):
        with pytest.raises(EvaluationFileError, match="are for the models"):
            read_method(file, {}, pair=others)
    surest = {"draft_model": "a", "assistant_model": ["b", "c"], "verifier": "assistant"}
    file.write_text(json.dumps(surest), encoding="utf-8")
    assert read_method(file, {}, pair=named).single is None, "the surest is no model alone"


def test_the_harness_takes_several_in_words(pair: Sequence[str], tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("lm_eval", exc_type=ImportError)
    from cosd_core.evaluation.lm_eval import CoSDLM

    lm = CoSDLM.create_from_arg_string(
        f"draft={pair[0]},assistant={pair[1]}+{pair[0]},verifier=rule+draft,calibration=1.5+0.7+1"
    )
    assert [Path(each.name).name for each in lm.decoder.models] == ["facts", "arithmetic", "facts"]
    assert lm.decoder.verifier == PanelVerifier((RuleVerifier(), DraftVerifier()))
    assert lm.decoder.calibration == (1.5, 0.7, 1.0)
    listed = CoSDLM.create_from_arg_obj({"draft": pair[0], "assistant": [pair[1], pair[0]]})
    assert listed.decoder.assistants == lm.decoder.assistants
    plus = tmp_path / "a+b"
    copytree(pair[1], plus)
    one = CoSDLM.create_from_arg_string(f"draft={pair[0]},assistant={plus}")
    assert [each.source for each in one.decoder.assistants] == [str(plus)]
    with pytest.raises(InvalidOptionError, match="numbers with a plus sign"):
        CoSDLM.create_from_arg_string(f"draft={pair[0]},assistant={pair[1]},calibration=1+x")
