"""lm-evaluation-harness gets the core's texts, and likelihoods that a plain computation confirms."""

import json
import math
import re
import runpy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosd_core import (
    AverageVerifier,
    Chat,
    ContextOverflowError,
    CoSDDecoder,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
    Leaf,
    RuleVerifier,
    Settings,
    Split,
    TreeVerifier,
    Verifier,
)
from cosd_core.demo import KINDS, held_out, load_pair
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.evaluation.lm_eval_options import read_task_options
from cosd_core.evaluation.word_likelihood import TextContinuation, word_likelihoods
from examples.bundled_pairs import load_words_pair
from tests.chats import chat_model
from tests.grids import exhaustive
from tests.models import counted_passes, random_model
from tests.reference import _logits
from tests.test_cli import cosd, models, pair  # noqa: F401 - fixtures

lm_eval = pytest.importorskip("lm_eval", exc_type=ImportError)

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from cosd_core.evaluation.lm_eval import CoSDLM  # noqa: E402

HERE = Path(__file__).parent
TREE = TreeVerifier((Split("q", 0.4, 1, 2), Leaf(False), Split("p", 0.6, 3, 4), Leaf(True), Leaf(False)))
VERIFIERS: list[Any] = [
    "draft", "assistant", "speculative", "average", AverageVerifier(0.2), "rule", RuleVerifier(0.9, 0.2),
    RuleVerifier(0, 0), TREE,
]  # fmt: skip


# The yardstick: every position by a full pass of every model over the whole prefix


def plainly(decoder: CoSDDecoder, text: Continuation) -> tuple[float, bool]:
    """What :func:`log_likelihoods` should give."""
    total, greedy = 0.0, True
    for at, token in enumerate(text.ids):
        shares = [
            softmax(_logits(model, (*prompt, *text.ids[:at])))
            for model, prompt in zip(decoder.models, text.prompts, strict=True)
        ]
        spoken = scored_by(decoder, shares)
        total += math.log(spoken[token])
        greedy &= int(spoken.argmax()) == token
    return total, greedy


def scored_by(decoder: CoSDDecoder, shares: Sequence[np.ndarray]) -> np.ndarray:
    verifier: Any = decoder.verifier
    draft, *others = shares
    if verifier.name == "average":
        return verifier.weight * draft + (1 - verifier.weight) * np.mean(others, axis=0)
    heated = [softmax(np.log(each) / heat) for each, heat in zip(shares, decoder.calibration, strict=True)]
    sure = [float(seen[share.argmax()]) for seen, share in zip(heated, shares, strict=True)]
    fires = {
        "draft": lambda _p, _q: False,
        "assistant": lambda _p, _q: True,
        "speculative": lambda _p, _q: True,
        "rule": lambda p, q: p < verifier.alpha and q > verifier.beta * p,
        "tree": lambda p, q: q > 0.4 and p <= 0.6,
    }[verifier.name]
    won = [
        at for at, other in enumerate(others)
        if other.argmax() != draft.argmax() and fires(sure[0], sure[1 + at])
    ]  # fmt: skip
    if won:
        return others[max(won, key=lambda at: sure[1 + at])]
    if verifier.name in ("assistant", "speculative"):
        return others[int(np.argmax(sure[1:]))]
    return draft


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def continuation(decoder: CoSDDecoder, prompt: str, text: str) -> Continuation:
    encode = decoder.draft.tokenizer.encode
    return Continuation((tuple(encode(prompt)),) * len(decoder.models), tuple(encode(text)))


TEXTS = [("a", "b"), ("The capital", " of France is Paris."), ("x" * 40, "yz"), ("short", "a long one " * 4)]


@pytest.mark.parametrize("verifier", VERIFIERS, ids=str)
@pytest.mark.parametrize(("batch_size", "logits_at_once"), [(1, 2**25), (4, 2**25), (3, 257 * 2 * 3 * 4)])
def test_likelihoods_are_those_of_a_plain_computation(
    draft: LanguageModel, assistant: LanguageModel, verifier: Any, batch_size: int, logits_at_once: int
) -> None:
    decoder = CoSDDecoder(draft, assistant, verifier=verifier, batch_size=batch_size)
    texts = [continuation(decoder, *each) for each in TEXTS]
    for found, text in zip(
        log_likelihoods(decoder, texts, logits_at_once=logits_at_once), texts, strict=True
    ):
        log, greedy = plainly(decoder, text)
        assert found.log == pytest.approx(log, rel=1e-9)
        assert found.greedy == greedy


@pytest.mark.parametrize("verifier", ["assistant", "average", RuleVerifier(0.9, 0.2), TREE], ids=str)
def test_so_they_are_with_two_assistants_and_other_temperatures(
    draft, assistant, second_assistant, verifier: Any
) -> None:
    decoder = CoSDDecoder(
        draft, [assistant, second_assistant], verifier=verifier, calibration=[1.7, 0.6, 2.5], batch_size=2
    )
    texts = [continuation(decoder, *each) for each in TEXTS]
    for found, text in zip(log_likelihoods(decoder, texts), texts, strict=True):
        assert found.log == pytest.approx(plainly(decoder, text)[0], rel=1e-9)


def test_where_all_agree_the_surest_assistant_is_scored() -> None:
    alike = [random_model(seed=0, sharpness=sharpness) for sharpness in (4.0, 2.0, 9.0)]
    decoder = CoSDDecoder(alike[0], alike[1:], verifier="assistant")
    text = continuation(decoder, "Once", " upon")
    assert log_likelihoods(decoder, [text])[0].log == pytest.approx(plainly(decoder, text)[0])


@pytest.mark.parametrize("verifier", VERIFIERS, ids=str)
def test_what_is_written_greedily_is_called_greedy_and_nothing_else_is(draft, assistant, verifier) -> None:
    decoder = CoSDDecoder(draft, assistant, verifier=verifier)
    written = decoder.generate("Once upon", max_new_tokens=20).token_ids
    other = (*written[:-1], (written[-1] + 1) % 256)
    prompt = tuple(draft.encode("Once upon"))
    texts = [Continuation((prompt, prompt), ids) for ids in (written, other)]
    assert [each.greedy for each in log_likelihoods(decoder, texts)] == [True, False]


@pytest.mark.parametrize("verifier", VERIFIERS, ids=str)
def test_the_probabilities_of_all_next_tokens_add_up_to_one(draft, assistant, verifier) -> None:
    decoder = CoSDDecoder(draft, assistant, verifier=verifier)
    prompt = tuple(draft.encode("Once upon"))
    with counted_passes(draft, assistant) as passes:
        found = log_likelihoods(decoder, [Continuation((prompt, prompt), (token,)) for token in range(257)])
    assert sum(math.exp(each.log) for each in found) == pytest.approx(1)
    assert len(passes) <= 2, "texts that differ in their last token are read once"


def test_assistants_are_not_read_where_nothing_can_be_replaced(draft, assistant) -> None:
    decoder = CoSDDecoder(draft, assistant, verifier=RuleVerifier(0, 0.5))
    with counted_passes(draft, assistant) as passes:
        log_likelihoods(decoder, [continuation(decoder, "a", "bcd")])
    assert passes == [draft.name]


def test_what_cannot_be_scored_is_refused(draft, assistant) -> None:
    class Mood(Verifier):
        name = "mood"

        def judge(self, position: Any) -> None:
            return None

    with pytest.raises(InvalidOptionError, match="over confidences"):
        log_likelihoods(CoSDDecoder(draft, assistant, verifier=Mood()), [Continuation(((1,), (1,)), (1,))])
    decoder = CoSDDecoder(draft, assistant)
    for text, words in (
        (Continuation(((1,), (1,)), ()), "a token to score"),
        (Continuation(((1,), ()), (1,)), "one not empty prompt per model"),
        (Continuation(((1,), (1,)), (999,)), "token id 999"),
    ):
        with pytest.raises(InvalidPromptError, match=words):
            log_likelihoods(decoder, [text])


def test_a_verifier_of_ones_own_may_define_its_distribution(draft, assistant) -> None:
    class Second(Verifier):
        name = "second"

        def judge(self, position: Any) -> None:
            return None

        def fused_logits(self, position: Any) -> Any:
            return position.opinions[0].logits

    decoders = [CoSDDecoder(draft, assistant, verifier=each) for each in (Second(), "assistant")]
    own, expected = (log_likelihoods(each, [continuation(each, "ab", "cde")]) for each in decoders)
    assert own == expected


# The adapter


def adapter(draft: LanguageModel, assistant: Any, **more: Any) -> CoSDLM:
    return CoSDLM(draft=draft, assistant=assistant, **more)


def asked(*arguments: tuple[Any, ...], kind: str = "generate_until") -> list[Instance]:
    return [Instance(kind, {}, each, at) for at, each in enumerate(arguments)]


def test_generate_until_gives_the_cores_texts(draft, assistant) -> None:
    model = adapter(draft, assistant, alpha=0.9, batch_size=3)
    decoder = CoSDDecoder(draft, assistant, verifier=RuleVerifier(0.9))
    prompts = ["a", "Once upon a time", "x y", "the end"]
    greedy = {"until": ["\n", "e", ""], "max_gen_toks": 24, "do_sample": False, "temperature": 0.7}
    sampled = {
        "until": "q",
        "max_new_tokens": 12,
        "do_sample": True,
        "temperature": 1.3,
        "seed": 5,
        "top_k": 9,
    }
    found = model.generate_until(
        asked(*[(each, how) for each in prompts for how in (greedy, sampled)]), disable_tqdm=True
    )
    plain = decoder.generate(prompts, stop=["\n", "e"], max_new_tokens=24)
    drawn = decoder.generate(prompts, stop="q", max_new_tokens=12, temperature=1.3, seed=5, top_k=9)
    assert found == [each.text for both in zip(plain, drawn, strict=True) for each in both]
    assert any(each.stats.replaced for each in plain)


def test_what_a_task_leaves_open_is_as_the_settings_say(draft, assistant) -> None:
    model = adapter(draft, assistant, max_new_tokens=7, temperature=0.8, seed=3, stop=["z"])
    expected = CoSDDecoder(draft, assistant).generate(
        "ab", max_new_tokens=7, temperature=0.8, seed=3, stop="z"
    )
    assert model.generate_until(asked(("ab", {})), disable_tqdm=True) == [expected.text]
    assert adapter(draft, assistant).max_gen_toks == 256


def test_a_prompt_that_is_too_long_is_cut_from_the_left(draft, assistant) -> None:
    long = "abcdefgh" * 50
    found = adapter(draft, assistant).generate_until(asked((long, {"max_gen_toks": 6})), disable_tqdm=True)
    assert found == [CoSDDecoder(draft, assistant).generate(long, max_new_tokens=6, truncation=True).text]


@pytest.mark.parametrize(
    ("given", "words"),
    [({"num_beams": 4}, "num_beams=4"), ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size"),
     ({"max_gen_toks": 0}, "max_new_tokens=0"), ({"temperatur": 1}, "'temperature'")],
)  # fmt: skip
def test_an_option_of_a_task_that_means_nothing_here_is_refused(draft, assistant, given, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        adapter(draft, assistant).generate_until(asked(("a", given)), disable_tqdm=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_gen_toks": "x"}, "max_gen_toks='x' should be a number"),
        ({"max_gen_toks": ""}, "max_gen_toks=''"),
        ({"max_gen_toks": 2.5}, "max_gen_toks=2.5 should be a whole number"),
        ({"max_gen_toks": float("inf")}, "max_gen_toks=inf"),
        ({"temperature": "warm"}, "temperature='warm'"),
        ({"until": 5}, "until=5"),
        ({"stop": {"a": 1}}, "stop={"),
    ],
)
def test_options_of_a_task_that_are_wrong_are_refused_by_name(given, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=re.escape(words)):
        read_task_options(given, settings={}, most=256)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"alfa": 0.5}, "did you mean 'alpha'"),
        ({"pretrained": "gpt2"}, "'pretrained'"),
        ({"alpha": -1}, "alpha=-1"),
        ({"verifier": "vote"}, "'vote'"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"draft_model": "x"}, "the same"),
    ],
)
def test_model_args_that_are_unknown_or_wrong_are_refused(draft, assistant, given, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        adapter(draft, assistant, **given)


def test_without_models_the_adapter_says_what_is_missing() -> None:
    with pytest.raises(InvalidOptionError, match="assistant is missing"):
        CoSDLM(draft="somewhere")


def test_model_args_go_before_the_harnesss_own(draft, assistant) -> None:
    given = {"draft": draft, "assistant": assistant, "batch_size": 5}
    assert CoSDLM.create_from_arg_obj(given, {"batch_size": 1, "max_batch_size": None}).batch_size == 5
    del given["batch_size"]
    assert CoSDLM.create_from_arg_obj(given, {"batch_size": "auto", "max_batch_size": 6}).batch_size == 6
    assert CoSDLM.create_from_arg_obj(given, {"batch_size": "4"}).batch_size == 4
    assert CoSDLM.create_from_arg_obj(given, {"batch_size": "auto:3"}).batch_size == 32


@pytest.mark.parametrize("verifier", ["average", "rule"])
def test_loglikelihood_is_that_of_the_core(draft, assistant, verifier: str) -> None:
    model = adapter(draft, assistant, verifier=verifier)
    found = model.loglikelihood(asked(("ab ", "cd"), ("", "xyz"), kind="loglikelihood"), disable_tqdm=True)
    decoder = CoSDDecoder(draft, assistant, verifier=verifier)
    eos = (draft.tokenizer.eos_token_id,)
    texts = [continuation(decoder, "ab", " cd"), Continuation((eos, eos), tuple(draft.encode("xyz")))]
    assert found == [
        (pytest.approx(log), greedy) for log, greedy in (plainly(decoder, each) for each in texts)
    ]


def test_a_scored_text_that_is_too_long_loses_its_beginning(draft, assistant) -> None:
    model, decoder = adapter(draft, assistant), CoSDDecoder(draft, assistant)
    [(log, _)] = model.loglikelihood(asked(("ab" * 200, "cd"), kind="loglikelihood"), disable_tqdm=True)
    assert log == pytest.approx(plainly(decoder, continuation(decoder, ("ab" * 200)[-255:], "cd"))[0])
    with pytest.raises(ContextOverflowError, match="257 tokens is to be scored"):
        model.loglikelihood(asked(("a", "b" * 257), kind="loglikelihood"), disable_tqdm=True)


def test_rolling_windows_score_every_token_once(draft, assistant) -> None:
    small = [random_model(seed=at, max_position_embeddings=16) for at in range(2)]
    model, decoder = adapter(*small), CoSDDecoder(*small)
    text = "abcdefghijklmnopqrstuvwxyz0123456789.!"
    eos, ids = small[0].tokenizer.eos_token_id, tuple(small[0].encode(text))
    windows = [((eos,), ids[:16]), ((ids[15],), ids[16:32]), (ids[21:32], ids[32:])]
    expected = sum(plainly(decoder, Continuation((before, before), after))[0] for before, after in windows)
    found = model.loglikelihood_rolling(
        asked((text,), ("a",), kind="loglikelihood_rolling"), disable_tqdm=True
    )
    assert found[0] == pytest.approx(expected)
    assert found[1] == pytest.approx(
        plainly(decoder, Continuation(((eos,), (eos,)), tuple(small[0].encode("a"))))[0]
    )


# Models with different tokenizers


def test_with_different_tokenizers_texts_are_scored_word_by_word() -> None:
    two = load_words_pair()
    model, decoder = adapter(*two), CoSDDecoder(*two)
    found = model.loglikelihood(
        asked(("Q: 3+4? A: ", "3+4=7"), ("", "iron"), kind="loglikelihood"), disable_tqdm=True
    )
    encoded = tuple(tuple(each.encode("Q: 3+4? A:")) for each in two)
    begins = tuple((each.tokenizer.bos_token_id,) for each in two)
    texts = [TextContinuation(encoded, " 3+4=7"), TextContinuation(begins, "iron")]
    expected = [(each.log, each.greedy) for each in word_likelihoods(decoder, texts)]
    assert found == [(pytest.approx(log), greedy) for log, greedy in expected]
    assert found[0][1]


def test_with_different_tokenizers_whole_texts_are_divided_between_words(monkeypatch) -> None:
    two = load_words_pair()
    model, decoder = adapter(*two), CoSDDecoder(*two)
    monkeypatch.setattr(CoSDLM, "max_length", 24)
    found = model.loglikelihood_rolling(
        asked(("iron is 26,\n26+7=33 é",), ("",), kind="loglikelihood_rolling"), disable_tqdm=True
    )
    parts = ["", "iron is 26,\n", "26+7=33 é"]
    texts = [
        TextContinuation(
            tuple(tuple(each.encode(before)) or (each.tokenizer.bos_token_id,) for each in two), part
        )
        for before, part in pairwise(parts)
    ]
    assert found == [pytest.approx(sum(each.log for each in word_likelihoods(decoder, texts))), 0]


# Chats


def test_a_chat_is_shown_to_every_model_by_its_own_template() -> None:
    two = chat_model("chatml"), chat_model("strict", seed=1)
    model, decoder = adapter(*two), CoSDDecoder(*two)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <|im_end|>"}]
    shown = model.apply_chat_template(messages)
    assert shown.endswith("<|im_start|>assistant\n")
    assert model.chat_template(True) == two[0].tokenizer.chat_template
    assert model.tokenizer_name == "chatml 0+strict 1"
    found = model.generate_until(asked((shown, {"max_gen_toks": 20})), disable_tqdm=True)
    assert found == [decoder.generate(Chat(messages), max_new_tokens=20).text]
    [(log, _)] = model.loglikelihood(asked((shown, "Hi"), kind="loglikelihood"), disable_tqdm=True)
    seen = (messages, [{"role": "user", "content": "Be brief.\n\nHello <|im_end|>"}])
    how = {"add_generation_prompt": True, "sanitize_control_tokens": True, "return_dict": False}
    prompts = tuple(
        tuple(each.tokenizer.apply_chat_template(said, **how)) for each, said in zip(two, seen, strict=True)
    )
    text = Continuation(prompts, tuple(two[0].encode("Hi", add_special_tokens=False)))
    assert log == pytest.approx(plainly(decoder, text)[0])


def test_an_answer_that_is_begun_is_gone_on_with() -> None:
    two = chat_model("chatml"), chat_model("strict", seed=1)
    model = adapter(*two)
    user = {"role": "user", "content": "Hello"}
    whole = model.apply_chat_template([user])
    begun = model.apply_chat_template(
        [user, {"role": "assistant", "content": "I"}], add_generation_prompt=False
    )
    assert begun == whole + "I"
    [(first, _), (both, _), (second, _)] = model.loglikelihood(
        asked((whole, "I"), (whole, "I say"), (begun, " say"), kind="loglikelihood"), disable_tqdm=True
    )
    assert both == pytest.approx(first + second)
    assert model.generate_until(asked((begun, {"max_gen_toks": 4})), disable_tqdm=True) != [""]


# The harness, end to end


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TaskManager:
    """The tasks in ``tests/harness_tasks``, whose files name their data from here."""
    monkeypatch.chdir(HERE)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    return TaskManager(include_path=str(HERE / "harness_tasks"), include_defaults=False)


def test_the_harness_evaluates_the_bundled_pair(tasks: TaskManager) -> None:
    facts, arithmetic = load_pair()
    names = ["cosd_questions", "cosd_choices", "cosd_texts"]
    scores = {}
    for verifier in ("draft", "rule"):
        results = lm_eval.simple_evaluate(
            model="cosd",
            model_args={"draft": facts, "assistant": arithmetic, "verifier": verifier},
            tasks=names,
            task_manager=tasks,
            batch_size=8,
            bootstrap_iters=0,
        )
        scores[verifier] = [results["results"][name] for name in names]
        samples = results["samples"]["cosd_questions"]
        questions = [question for kind in KINDS for question in held_out(kind, 4)]
        decoder = CoSDDecoder(facts, arithmetic, verifier=verifier)
        texts = [
            each.text for each in decoder.generate([each.prompt for each in questions], max_new_tokens=48)
        ]
        assert [sample["resps"][0][0] for sample in samples] == texts
    assert scores["rule"][0]["exact_match,whole"] > 0.9 > 0.5 > scores["draft"][0]["exact_match,whole"]
    assert scores["rule"][1]["acc,none"] == 1
    assert scores["rule"][2]["byte_perplexity,none"] > 1


def test_the_harness_evaluates_a_pair_with_two_tokenizers(tasks: TaskManager) -> None:
    facts, arithmetic = load_words_pair()
    results = lm_eval.simple_evaluate(
        model="cosd",
        model_args={"draft": arithmetic, "assistant": facts},
        tasks=["cosd_choices", "cosd_texts"],
        task_manager=tasks,
        batch_size=8,
        bootstrap_iters=0,
        limit=3,
    )["results"]
    assert results["cosd_choices"]["acc,none"] == 1
    assert results["cosd_texts"]["byte_perplexity,none"] > 1


def test_the_command_line_of_the_harness_knows_the_model(cosd, pair, tasks, tmp_path: Path) -> None:  # noqa: F811
    output = cosd(
        "lm-eval", "run", "--model", "cosd", "--model_args",
        f"draft={pair[0]},assistant={pair[1]},verifier=rule,alpha=0.5,batch_size=4",
        "--tasks", "cosd_questions", "--include_path", str(HERE / "harness_tasks"),
        "--device", "cpu", "--output_path", str(tmp_path / "out"),
    )  # fmt: skip
    assert output.code == 0, output.err
    assert "exact_match" in output.out
    [path] = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(path.read_text())["results"]["cosd_questions"]["exact_match,whole"] > 0.9


@exhaustive
def test_a_wrong_setting_on_that_command_line_is_one_line(cosd, pair, tasks) -> None:  # noqa: F811
    output = cosd(
        "lm-eval", "run", "--model", "cosd", "--model_args", f"draft={pair[0]},assistant={pair[1]},alfa=0.5",
        "--tasks", "cosd_questions", "--include_path", str(HERE / "harness_tasks"), "--device", "cpu",
    )  # fmt: skip
    assert output.code == 2
    assert "did you mean 'alpha'" in output.err


def test_the_papers_commands_are_ones_the_adapter_takes(tmp_path: Path) -> None:
    script = runpy.run_path(str(HERE.parent / "examples/reproduce_paper/reproduce.py"))
    TREE.save(tmp_path / "tree.json")
    assert [each["pair"] for each in script["PAIRS"]] == [1, 2, 3, 4, 5, 6]
    for each in script["PAIRS"]:
        for method in script["METHODS"]:
            arguments = script["model_args"](each, method)
            if "tree_path" in arguments:
                arguments["tree_path"] = str(tmp_path / "tree.json")
            names = {"draft_model": arguments.pop("draft"), "assistant_model": arguments.pop("assistant")}
            assert Settings(**names, **arguments).method()["verifier"].name == method
            assert "cosd lm-eval run" in " ".join(script["command"](each, method, "GSM8K"))
