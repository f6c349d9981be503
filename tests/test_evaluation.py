"""Tasks are scored as their files say, every method answers the same prompts, nothing finished is lost."""

import csv
import gc
import io
import json
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosd_core import (
    Chat,
    CoSDDecoder,
    CoSDError,
    EvaluationFileError,
    InvalidOptionError,
    LanguageModel,
    MissingExtraError,
    TreeVerifier,
)
from cosd_core.demo import KINDS, held_out, is_correct, load_pair
from cosd_core.evaluation import (
    Answer,
    AnswerFile,
    ChoiceScoring,
    ExactScoring,
    Item,
    Method,
    NumberScoring,
    Outcome,
    RegexScoring,
    Task,
    bundled_task,
    make_methods,
    make_report,
    make_scoring,
    read_method,
    read_task,
    run,
    save_plots,
)
from cosd_core.evaluation.files import append_lines, read_lines
from cosd_core.evaluation.intervals import paired_difference, share
from cosd_core.frontend.settings_file import read_settings
from cosd_core.utils import text_lines
from cosd_core.verifiers import Leaf
from tests.models import counted_passes, random_model
from tests.test_cli import Output, cosd, models, pair  # noqa: F401 - fixtures

CITIES = ChoiceScoring(("Rome", "Paris", "New York", "York"))


@pytest.fixture(scope="module")
def bundled() -> CoSDDecoder:
    return CoSDDecoder(*load_pair(), batch_size=4)


def named(decoder: CoSDDecoder, *names: str, both_roles: bool = False, **more: object) -> list[Method]:
    sources = {"draft_model": decoder.draft, "assistant_model": list(decoder.assistants)}
    return make_methods(names, {**sources, **more}, both_roles=both_roles)


# Scoring


@pytest.mark.parametrize(
    ("scoring", "text", "answer", "right"),
    [
        (ExactScoring(), " Paris\n", "Paris", True),
        (ExactScoring(), "paris", "Paris", False),
        (ExactScoring(ignore_case=True), "paris", "Paris", True),
        (RegexScoring(r"#### (\S+)"), "6 + 6\n#### 12\n#### 13", "12", True),
        (RegexScoring(r"#### (\S+)", last=True), "6 + 6\n#### 12\n#### 13", "12", False),
        (RegexScoring(r"\d+"), "it is 12, not 13", "12", True),
        (RegexScoring(r"\d+"), "it is twelve", "12", False),
        (RegexScoring(r"yes|no", ignore_case=True), "I say no.", "NO", True),
        (NumberScoring(), "26+7=33", "33", True),
        (NumberScoring(), "so 5-3", "3", True),
        (NumberScoring(), "so (5)-3", "3", True),
        (NumberScoring(), "it is -3.", "-3", True),
        (NumberScoring(), "it is \u22123", "-3", True),
        (NumberScoring(), "$1,234.50 in all", "1234.5", True),
        (NumberScoring(), "1,2", "2", True),
        (NumberScoring(), "about 1e3", "1000", True),
        (NumberScoring(), "none of b52", "52", False),
        (NumberScoring(), "9" * 400, "9", False),
        (NumberScoring(tolerance=0.01), "3.149", "3.14", True),
        (NumberScoring(tolerance=0.01), "3.16", "3.14", False),
        (CITIES, "B", "B", True),
        (CITIES, "(B) because", "B", True),
        (CITIES, "B. Paris", "Paris", True),
        (CITIES, "paris.", "B", True),
        (CITIES, "The answer is B because it is.", "B", True),
        (CITIES, "Answer: A? No, the answer is **(B)**.", "B", True),
        (CITIES, "I think of Paris, France", "B", True),
        (CITIES, "I think of New York", "C", True),
        (CITIES, "Rome or Paris", "A", False),
        (CITIES, "A city", "A", False),
        (CITIES, "Parisians", "B", False),
        (CITIES, "", "A", False),
    ],
)
def test_a_rule_tells_right_from_wrong(scoring, text: str, answer: str, right: bool) -> None:
    assert scoring.accepts(text, ["nothing, or 77", answer]) is right


numbers = st.floats(-1e9, 1e9).map(lambda each: round(each, 3))


@given(st.text(alphabet="ab 1.,-$(", max_size=20), numbers, numbers)
def test_the_last_number_counts_whatever_stands_before_it(before: str, value: float, other: float) -> None:
    scoring = NumberScoring()
    for form in (f"{value!r}", f"{value:,}", f"{value:.3f}"):
        text = f"{before} {form}"
        assert scoring.accepts(text, [repr(value)])
        assert scoring.accepts(text, [repr(other)]) == (value == other)


@given(numbers, numbers, st.floats(0, 100))
def test_tolerance_is_a_distance(value: float, answer: float, tolerance: float) -> None:
    assert NumberScoring(tolerance).accepts(f"{value!r}", [repr(answer)]) == (
        abs(value - answer) <= tolerance
    )


@given(
    st.lists(st.text(alphabet="defgh", min_size=2, max_size=6), min_size=2, max_size=8, unique=True),
    st.data(),
)
def test_a_choice_is_named_by_its_letter_or_its_text_and_no_other_is(choices: list[str], data) -> None:
    scoring = ChoiceScoring(tuple(choices))
    at = data.draw(st.integers(0, len(choices) - 1))
    letter = "ABCDEFGH"[at]
    for text in (letter, f"({letter})", f" {letter}) {choices[at]}", choices[at], f"The answer is {letter}."):
        assert scoring.extract(text) == letter


@given(st.text(max_size=15), st.text(max_size=15))
def test_a_pattern_takes_what_it_says(before: str, answer: str) -> None:
    scoring = RegexScoring(r"(?s)<answer>(.*)</answer>")
    assert scoring.accepts(f"{before}<answer>{answer}</answer>", [answer])


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ("closest", "'closest'"),
        ({"name": "numeric", "tolerance": -1}, "tolerance=-1"),
        ({"name": "numeric", "precision": 1}, "precision"),
        ({"name": "regex"}, "pattern"),
        ({"name": "regex", "pattern": "("}, "pattern='('"),
        ({"name": "regex", "pattern": "x", "last": 1}, "last=1"),
        ({"name": "choice", "choices": ["a"]}, "choices=['a']"),
        ({"name": "choice", "choices": ["a", "A "]}, "different"),
        ({"name": "choice", "choices": ["B", "C"]}, "'B' is the letter of another choice"),
        (7, "scoring=7"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(described, words: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        make_scoring(described)
    assert words in str(caught.value)


# Intervals


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_holds_its_share_and_mirrors(items: int, data) -> None:
    right = data.draw(st.integers(0, items))
    own, mirrored = share(right, items), share(items - right, items)
    assert 0 <= own.low <= own.value <= own.high <= 1
    assert own.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    wider = share(right, items, confidence=0.99)
    assert wider.low <= own.low
    assert wider.high >= own.high


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
    for right, items, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        assert share(right, items).low == pytest.approx(low, abs=5e-5)
        assert share(right, items).high == pytest.approx(high, abs=5e-5)


counts = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(counts)
def test_the_paired_interval_holds_its_difference_and_mirrors(cells: tuple[int, ...]) -> None:
    both, first, second, neither = cells
    own, other = paired_difference(*cells), paired_difference(both, second, first, neither)
    assert -1 <= own.low <= own.value <= own.high <= 1
    assert (own.low, own.high) == pytest.approx((-other.high, -other.low), abs=1e-12)


def test_the_paired_interval_covers_as_often_as_it_says() -> None:
    draw = random.Random(0)
    for chances in ((0.3, 0.3, 0.1, 0.3), (0.05, 0.6, 0.02, 0.33), (0.9, 0.04, 0.03, 0.03)):
        true, covered = chances[1] - chances[2], 0
        for _ in range(1000):
            cells = [0, 0, 0, 0]
            for cell in draw.choices(range(4), chances, k=50):
                cells[cell] += 1
            interval = paired_difference(*cells)
            covered += interval.low <= true <= interval.high
        assert 930 <= covered <= 995


@pytest.mark.parametrize(
    "call",
    [
        lambda: share(3, 2),
        lambda: share(0, 0),
        lambda: share(1, 2, 1.0),
        lambda: paired_difference(0, 0, 0, 0),
        lambda: paired_difference(1, -1, 0, 0),
    ],
)
def test_impossible_counts_are_refused(call) -> None:
    with pytest.raises(InvalidOptionError):
        call()


# Tasks


def test_a_file_becomes_a_task(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    lines = [
        {"task": "arithmetic", "scoring": {"name": "numeric", "tolerance": 0.5}, "max_new_tokens": 9,
         "stop": ["Q"]},
        {"prompt": "1+1?", "answer": 2},
        {"prompt": "Which?", "answer": ["Rome", "C"], "choices": ["Rome", "Oslo", "Bern"],
         "scoring": "choice", "group": "cities"},
        {"prompt": [{"role": "user", "content": "Hello"}], "answer": "Hi", "scoring": "exact"},
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    task = read_task(path)
    assert (task.name, task.options) == ("arithmetic", {"max_new_tokens": 9, "stop": ["Q"]})
    assert task.items[0] == Item("1+1?", ("2",), NumberScoring(0.5))
    assert task.items[1] == Item("Which?", ("Rome", "C"), ChoiceScoring(("Rome", "Oslo", "Bern")), "cities")
    assert task.items[2].prompt == Chat([{"role": "user", "content": "Hello"}])
    assert task.groups == ("", "cities")
    assert len({item.identity for item in task.items}) == 3


SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
"""Characters at which str.splitlines splits, and JSON Lines do not."""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_only_a_newline_ends_a_line_of_a_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "lines.jsonl"
    asks = [json.dumps({"prompt": f"a{each}b", "answer": "c"}, ensure_ascii=False) for each in SEPARATORS]
    path.write_bytes(ending.join([*asks, ""]).encode())
    assert [item.prompt for item in read_task(path).items] == [f"a{each}b" for each in SEPARATORS]
    path.write_bytes(ending.join(f"a{each}b" for each in SEPARATORS).encode())
    assert text_lines(path) == [f"a{each}b" for each in SEPARATORS]


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}', encoding="utf-8-sig")
    assert [item.prompt for item in read_task(path).items] == ["a"]
    path.write_text('{"alpha": 0.25}', encoding="utf-8-sig")
    assert read_settings(path) == {"alpha": 0.25}


def test_a_line_of_answers_may_hold_what_ends_lines_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_lines(path, [f"a{each}b" for each in SEPARATORS])
    assert [line.decode() for line in read_lines(path)] == [f"a{each}b" for each in SEPARATORS]


def test_without_a_word_on_scoring_choices_decide(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(
        '{"prompt": "x", "answer": "y"}\n{"prompt": "x", "answer": "b", "choices": ["a b", "b"]}\n'
    )
    task = read_task(path)
    assert [type(item.scoring) for item in task.items] == [ExactScoring, ChoiceScoring]
    assert task.name == "plain"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "holds no question"),
        (["{"], "line 1: '{' is not JSON"),
        (["[]"], "line 1: '[]' should be a JSON object"),
        (['{"prompt": "x"}'], "line 1: answer is missing"),
        (['{"prompt": "x", "answer": "y"}', '{"answer": "y"}'], "line 2: prompt is missing"),
        (['{"prompt": "", "answer": "y"}'], "line 1: prompt=''"),
        (['{"prompt": [{"role": "king", "content": "x"}], "answer": "y"}'], "role='king'"),
        (['{"prompt": "x", "answer": []}'], "answer=[]"),
        (['{"prompt": "x", "answer": {"a": 1}}'], "answer={'a': 1}"),
        (['{"prompt": "x", "answer": "y", "points": 3}'], "unknown entry 'points'"),
        (['{"prompt": "x", "answer": "y", "group": 3}'], "group=3"),
        (['{"prompt": "x", "answer": "many", "scoring": "numeric"}'], "answer 'many' should be a number"),
        (['{"prompt": "x", "answer": "C", "choices": ["a", "b c"]}'], "answer 'C'"),
        (['{"prompt": "x", "answer": "A", "scoring": "choice"}'], "choices are missing"),
        (['{"prompt": "x", "answer": "A", "scoring": "exact", "choices": ["a", "b"]}'], "scoring='exact'"),
        (['{"scoring": "best"}', '{"prompt": "x", "answer": "y"}'], "line 2: scoring={'name': 'best'}"),
        (['{"max_new_tokens": 0}', '{"prompt": "x", "answer": "y"}'], "line 1: max_new_tokens=0"),
        (['{"task": 5}', '{"prompt": "x", "answer": "y"}'], "line 1: task=5"),
    ],
)
def test_an_error_in_a_task_names_file_line_and_value(tmp_path: Path, lines: list[str], words: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(EvaluationFileError) as caught:
        read_task(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_task_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(EvaluationFileError, match=r"nothing\.jsonl"):
        read_task(tmp_path / "nothing.jsonl")


def test_the_bundled_questions_are_scored_as_the_demo_scores_them() -> None:
    task = bundled_task(questions=20)
    assert task.groups == KINDS
    asked = [question for kind in KINDS for question in held_out(kind, 20)]
    assert [item.prompt for item in task.items] == [question.prompt for question in asked]
    for item, question in zip(task.items, asked, strict=True):
        for text in (question.answer, question.answer + " ", question.answer[:-1], ""):
            assert item.is_right(text) == is_correct(question, text)
    assert [item.group for item in task.limited(2).items] == [kind for kind in KINDS for _ in range(2)]


# Methods


def test_methods_have_their_own_settings(bundled: CoSDDecoder) -> None:
    every = named(bundled, "draft", "assistant", "speculative", "average", "rule", alpha=0.9, weight=0.3)
    assert [each.name for each in every] == [
        "draft", "assistant", "speculative", "average (0.3)", "rule (0.9, 0.5)"
    ]  # fmt: skip
    assert [each.single for each in every] == ["draft", "assistant", None, None, None]


def test_both_roles_double_what_they_change(bundled: CoSDDecoder) -> None:
    both = named(bundled, "draft", "average", "rule", both_roles=True, calibration=[2.0, 3.0])
    assert [each.name for each in both] == [
        "draft", "average (0.5)", "rule (0.5, 0.5)", "rule (0.5, 0.5), roles swapped"
    ]  # fmt: skip
    swapped = both[-1].decoder(bundled)
    assert (swapped.draft, *swapped.assistants) == (bundled.assistants[0], bundled.draft)
    assert swapped.calibration == (3.0, 2.0)


def test_a_tree_stays_in_the_role_that_it_was_learned_for(bundled: CoSDDecoder, tmp_path: Path) -> None:
    TreeVerifier((Leaf(True),)).save(tmp_path / "tree.json")
    [method] = named(bundled, "tree", both_roles=True, tree_path=str(tmp_path / "tree.json"))
    assert not method.swapped


def test_roles_are_swapped_between_two_models_only(draft, assistant, second_assistant) -> None:
    three = CoSDDecoder(draft, [assistant, second_assistant])
    [_, swapped] = named(three, "rule", both_roles=True)
    with pytest.raises(InvalidOptionError, match="not 3"):
        swapped.decoder(three)


def test_a_settings_file_is_a_method(bundled: CoSDDecoder, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    names = [model.name for model in bundled.models]
    base = {"draft_model": bundled.draft, "assistant_model": bundled.assistants[0], "alpha": 0.1}
    path.write_text(json.dumps({"verifier": "rule", "alpha": 0.75, "draft_length": 3}))
    method = read_method(path, base, pair=names)
    assert (method.name, method.verifier.alpha, method.parts["draft_length"]) == ("tuned", 0.75, 3)
    path.write_text(json.dumps({"draft_model": names[1], "assistant_model": names[0]}))
    assert read_method(path, base, pair=names).swapped
    for content, words in (
        ({"draft_model": "other"}, "'other'"), ([1], "[1]"), ({"alfa": 1}, "alpha"), ({"alpha": -1}, "-1")
    ):  # fmt: skip
        path.write_text(json.dumps(content))
        with pytest.raises(CoSDError) as caught:
            read_method(path, base, pair=names)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [("vote", {}, "'vote'"), ("tree", {}, "tree_path"), ("rule", {"alpha": -1}, "alpha=-1")],
)
def test_a_method_that_cannot_be_is_refused(bundled: CoSDDecoder, name: str, more, words: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        named(bundled, name, **more)
    assert words in str(caught.value)


# Runs


def test_every_method_answers_the_same_prompts_as_the_decoder_would(
    bundled: CoSDDecoder, tmp_path: Path
) -> None:
    task = bundled_task(questions=3)
    methods = named(bundled, "draft", "average", "rule", both_roles=True)
    told: list[tuple[str, int]] = []
    outcomes = run(
        bundled,
        methods,
        [task],
        answers=AnswerFile(tmp_path / "a.jsonl"),
        progress=lambda *each: told.append(each),
    )
    prompts = [item.prompt for item in task.items]
    for outcome in outcomes:
        expected = outcome.method.decoder(bundled).generate(prompts, max_new_tokens=48)
        assert [answer.text for answer in outcome.answers] == [each.text for each in expected]
        assert [answer.kept for answer in outcome.answers] == [each.stats.kept for each in expected]
    assert sum(count for name, count in told if name == "draft") == len(prompts)
    assert [name for name, _ in told[:4]] == [method.name for method in methods], "methods take turns"


def test_an_interrupted_run_goes_on_and_loses_nothing(bundled: CoSDDecoder, tmp_path: Path) -> None:
    task, methods = bundled_task(questions=4), named(bundled, "draft", "rule")
    path = tmp_path / "out" / "answers.jsonl"
    told = 0

    def interrupt(_name: str, _count: int) -> None:
        nonlocal told
        told += 1
        if told == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(bundled, methods, [task], answers=AnswerFile(path), progress=interrupt)
    assert len(AnswerFile(path)) == 12
    with path.open("a") as file:
        file.write('{"key": "cut in the mid')  # what a machine that stops leaves behind
    again = run(bundled, methods, [task], answers=AnswerFile(path))
    assert len(AnswerFile(path)) == 24
    assert len(path.read_text().splitlines()) == 24, "nothing was answered twice"
    fresh = run(bundled, methods, [task], answers=AnswerFile(tmp_path / "fresh.jsonl"))
    assert [[a.text for a in each.answers] for each in again] == [
        [a.text for a in each.answers] for each in fresh
    ]
    with counted_passes(*bundled.models) as passes:
        run(bundled, methods, [task], answers=AnswerFile(path))
    assert passes == []


def test_another_setting_is_answered_anew_and_another_score_is_not(
    bundled: CoSDDecoder, tmp_path: Path
) -> None:
    answers = AnswerFile(tmp_path / "answers.jsonl")
    task = bundled_task(questions=1)
    run(bundled, named(bundled, "rule"), [task], answers=answers)
    run(bundled, named(bundled, "rule", alpha=0.9), [task], answers=answers)
    run(bundled, named(bundled, "rule"), [task], answers=answers, options={"max_new_tokens": 47})
    assert len(answers) == 9
    other = Task(
        "other", tuple(Item(item.prompt, ("5",), NumberScoring()) for item in task.items), task.options
    )
    run(bundled, named(bundled, "rule"), [other], answers=answers)
    assert len(answers) == 9


def test_other_weights_under_the_same_name_are_asked_anew(tmp_path: Path) -> None:
    """Another subfolder, and files that were replaced: each model gives its own answers."""
    task = Task("one", (Item("ab", ("x",), ExactScoring()),), {"max_new_tokens": 8})
    partner = random_model(seed=9, dtype=torch.float32)
    expected = {}
    for name, seed in (("one", 0), ("two", 1)):
        model = random_model(seed=seed, dtype=torch.float32)
        expected[name] = CoSDDecoder(model, partner).generate("ab", max_new_tokens=8).text
        model.model.save_pretrained(tmp_path / "models" / name)
        model.tokenizer.save_pretrained(tmp_path / "models" / name)
    assert len(set(expected.values())) == 2

    def answers_of(subfolder: str) -> str:
        model = LanguageModel.from_pretrained(tmp_path / "models", subfolder=subfolder)
        decoder = CoSDDecoder(model, partner)
        [outcome] = run(decoder, named(decoder, "rule"), [task], answers=AnswerFile(tmp_path / "a.jsonl"))
        return outcome.answers[0].text

    assert [answers_of("one"), answers_of("two")] == [*expected.values()]
    gc.collect()  # the registry finds no loaded model of that name
    for file in (tmp_path / "models" / "one").iterdir():
        shutil.copy(tmp_path / "models" / "two" / file.name, file)
    assert answers_of("one") == expected["two"]


@pytest.mark.parametrize(
    ("line", "words"),
    [("{}", "line 1"), ("x", "line 1 is not JSON"), (None, "seconds='long'")],
)
def test_a_damaged_file_of_answers_is_refused(tmp_path: Path, line: str | None, words: str) -> None:
    path = tmp_path / "answers.jsonl"
    AnswerFile(path).add([answer()])
    whole = path.read_text().replace('"seconds": 1.0', '"seconds": "long"')
    path.write_text(f"{line}\n" if line else whole)
    with pytest.raises(EvaluationFileError) as caught:
        AnswerFile(path)
    assert words in str(caught.value)


def test_two_methods_of_one_name_are_refused(bundled: CoSDDecoder, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="two methods are named 'rule"):
        run(bundled, named(bundled, "rule") * 2, [bundled_task(1)], answers=AnswerFile(tmp_path / "a"))


# Reports


def answer(tokens: int = 10, kept: int = 8, **more: object) -> Answer:
    fields = {
        "key": "k", "method": "m", "task": "t", "text": "x", "finish_reason": "stop", "tokens": tokens,
        "kept": kept, "drafted": 16, "rounds": 4, "draft_passes": 16, "assistant_passes": 5, "seconds": 1.0,
        "run": "now",
    }  # fmt: skip
    return Answer(**{**fields, **more})


def outcomes_by_hand(decoder: CoSDDecoder) -> list[Outcome]:
    """Six questions in two groups; the draft has one right, the assistant two, the rule five."""
    items = tuple(Item(f"{at}", ("x",), ExactScoring(), "one" if at < 4 else "two") for at in range(6))
    right = {"draft": "100000", "assistant": "000011", "rule": "111110"}
    return [
        Outcome(method, Task("by hand", items), (answer(),) * 6, tuple(map(bool, map(int, right[name]))))
        for name, method in zip(right, named(decoder, *right), strict=True)
    ]


def test_a_report_counts_what_can_be_counted_by_hand(bundled: CoSDDecoder) -> None:
    report = make_report(outcomes_by_hand(bundled), {"models": "a and b"})
    assert report.columns == [("by hand", "one"), ("by hand", "two"), ("by hand", "all")]
    line = report.line("rule (0.5, 0.5)", "by hand", "all")
    assert (line.right, line.items, line.accuracy) == (5, 6, share(5, 6))
    assert (line.best_single, line.gain) == ("assistant", paired_difference(1, 4, 1, 0))
    assert report.line("rule (0.5, 0.5)", "by hand", "one").best_single == "draft"
    assert (line.tokens_per_second, line.tokens, line.rounds) == (10, 10, 4)
    assert (line.acceptance, line.draft_passes, line.assistant_passes) == (0.5, 1.6, 0.5)
    assert report.line("draft", "by hand", "all").gain is None
    assert "+50.0" in report.to_markdown()
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(rows) == 9
    assert float(rows[-1]["gain"]) == 0.5
    assert json.loads(json.dumps(report.to_dict()))["lines"][-1]["accuracy"]["value"] == 5 / 6


def test_several_tasks_have_a_column_each_and_one_for_all(bundled: CoSDDecoder) -> None:
    first = outcomes_by_hand(bundled)
    second = [
        Outcome(each.method, Task("more", each.task.items[:4]), each.answers[:4], each.right[:4])
        for each in first
    ]
    report = make_report([*first, *second], {})
    assert report.titles == ["by hand: one", "by hand: two", "by hand", "more", "all"]
    assert report.line("assistant", "all", "all").accuracy == share(2, 10)
    assert report.line("rule (0.5, 0.5)", "all", "all").gain == paired_difference(2, 7, 0, 1)


def test_answers_of_several_runs_are_said_not_to_compare(bundled: CoSDDecoder) -> None:
    [first, *others] = outcomes_by_hand(bundled)
    mixed = Outcome(first.method, first.task, (answer(run="before"), *first.answers[1:]), first.right)
    assert "2 runs" in make_report([mixed, *others], {}).to_markdown()
    assert "runs, so" not in make_report([first, *others], {}).to_markdown()


def test_plots_are_drawn(bundled: CoSDDecoder, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for path in save_plots(make_report(outcomes_by_hand(bundled), {}), tmp_path / "new"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_plots_are_refused(
    bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"cosd\[plots\]"):
        save_plots(make_report(outcomes_by_hand(bundled), {}), tmp_path)


# The command


def test_evaluate_asks_the_bundled_pair_its_own_questions(cosd, tmp_path: Path) -> None:  # noqa: F811
    flags = ("--questions", "3", "--out", str(tmp_path), "--plots")
    output: Output = cosd("evaluate", *flags)
    assert output.code == 0, output.err
    assert "rule (0.5, 0.5)" in output.out
    assert {path.name for path in tmp_path.iterdir()} >= {
        "answers.jsonl",
        "report.md",
        "report.csv",
        "report.json",
    }
    report = json.loads(cosd("evaluate", *flags, "--json").out)
    of_all = {line["method"]: line for line in report["lines"] if line["group"] == "all"}
    assert of_all["rule (0.5, 0.5)"]["gain"]["value"] > 0.4
    assert of_all["speculative"]["right"] == of_all["assistant"]["right"]


def test_evaluate_takes_models_tasks_and_settings(cosd, pair, tmp_path: Path) -> None:  # noqa: F811
    task, tuned = tmp_path / "task.jsonl", tmp_path / "tuned.json"
    task.write_text('{"prompt": "Q: 3+4? A:", "answer": 7, "scoring": "numeric"}\n')
    tuned.write_text('{"verifier": "rule", "alpha": 0.9}')
    output = cosd(
        "evaluate", *models(pair), "--task", str(task), "--method", "rule", "--method", "draft",
        "--alpha", "0.3", "--settings-file", str(tuned), "--max-new-tokens", "24",
        "--out", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    lines = json.loads(output.out)["lines"]
    assert [line["method"] for line in lines] == ["rule (0.3, 0.5)", "draft", "tuned"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["PAIR"], 2, "--task is missing"),
        (["PAIR", "--task", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["--method", "vote"], 2, "'vote'"),
        (["--method", "tree"], 2, "tree_path"),
        (["--settings-file", "nowhere.json"], 1, "nowhere.json"),
        (["--alpha", "-1"], 2, "alpha=-1"),
        (["--questions", "100000"], 2, "100000"),
    ],
)
def test_errors_of_evaluate_are_one_line(cosd, pair, tmp_path, arguments, code: int, words: str) -> None:  # noqa: F811
    given_words = [word for each in arguments for word in (models(pair) if each == "PAIR" else [each])]
    output = cosd("evaluate", *given_words, "--out", str(tmp_path))
    assert output.code == code
    assert words in output.err
    assert "Traceback" not in output.err


def test_without_the_harness_its_command_says_what_to_install(
    cosd,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    monkeypatch.delitem(sys.modules, "cosd_core.evaluation.lm_eval", raising=False)
    monkeypatch.delattr("cosd_core.evaluation.lm_eval", raising=False)
    output = cosd("lm-eval", "run", "--model", "cosd")
    assert output.code == 1
    assert "cosd[evaluate]" in output.err
