"""Replay writes what decoding does, choices never see what judges them, advice follows figures."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import (
    AssistantVerifier,
    AverageVerifier,
    Chat,
    CoSDDecoder,
    DraftVerifier,
    EvaluationFileError,
    Grammar,
    InvalidOptionError,
    Leaf,
    RuleVerifier,
    Settings,
    Split,
    TreeVerifier,
    read_settings,
)
from cosd_core.demo import load_pair
from cosd_core.evaluation import read_task, unasked_task
from cosd_core.tuning import (
    CalibrationSummary,
    ReplacementRate,
    ReplayCache,
    Setting,
    Table,
    Tuning,
    choose,
    choose_nested,
    make_candidates,
    tune,
    tuner,
)
from cosd_core.tuning.decision_trie import Ending
from cosd_core.tuning.folds import divide
from cosd_core.tuning.recommendation import recommend, recommend_per_group, warn
from tests.grids import exhaustive
from tests.models import ascii_model, counted_passes
from tests.test_cli import IRON, cosd, pair  # noqa: F401 - fixtures

PAIRS = [(ascii_model(seed=seed), ascii_model(seed=seed + 1)) for seed in (0, 2, 4)]
PROMPTS = ["Hello", "a b c", "1, 2,", "x"]

thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
rules = st.builds(RuleVerifier, thresholds, thresholds)
trees = st.builds(
    lambda p, q, leaves: TreeVerifier(
        (Split("p", p, 1, 4), Split("q", q, 2, 3), *(Leaf(each) for each in leaves))
    ),
    thresholds, thresholds, st.tuples(*[st.booleans()] * 3),
)  # fmt: skip
verifiers = st.one_of(rules, trees, st.just(DraftVerifier()), st.just(AssistantVerifier()))
options = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 24)},
    optional={
        "stop": st.lists(st.text("abcde ,0123", min_size=1, max_size=2), max_size=3),
        "eos_token_id": st.lists(st.integers(32, 126), min_size=1, max_size=6),
        "min_new_tokens": st.integers(0, 6),
    },
)
HEATS = ((1.0, 0.5, 3.0), (1.0, 2.0, 0.7))


def write(cache: ReplayCache, setting: Setting, prompts: int = len(PROMPTS)) -> list[Ending]:
    return cache.generate([(setting, prompt) for prompt in range(prompts)])


@exhaustive
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(PAIRS),
    options,
    st.lists(st.builds(Setting, verifiers, st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(1, 8),
)
def test_a_replayed_setting_writes_what_it_would_have_decoded(two, wanted, chosen, draft_length) -> None:
    cache = ReplayCache(two, PROMPTS, wanted, temperatures=HEATS, draft_length=draft_length, batch_size=3)
    for setting in chosen:
        first = write(cache, setting)
        computed = cache.computed
        assert write(cache, setting) == first
        assert cache.computed == computed
        models = two[::-1] if setting.draft else two
        temperatures = [each[setting.temperature_index] for each in HEATS]
        decoder = CoSDDecoder(
            models[0], models[1:], verifier=setting.verifier,
            calibration=temperatures[::-1] if setting.draft else temperatures,
        )  # fmt: skip
        expected = decoder.generate(PROMPTS, **wanted)
        assert [each.text for each in first] == [each.text for each in expected]
        assert [each.finish_reason for each in first] == [each.finish_reason for each in expected]


@pytest.mark.parametrize(
    "wanted",
    [
        {"grammar": Grammar.regex("[a-f ]{3,20}(yes|no)"), "max_new_tokens": 30},
        {"repetition_penalty": 1.3, "max_new_tokens": 12},
    ],
    ids=["grammar", "penalty"],
)
def test_chats_grammars_and_penalties_are_replayed_as_they_are_decoded(wanted) -> None:
    first, second = PAIRS[0]
    prompts = ["Hello", Chat([{"role": "user", "content": "Hi there"}])]
    cache = ReplayCache((first, second), prompts, wanted)
    for verifier in (RuleVerifier(0.9, 0.1), AssistantVerifier(), RuleVerifier(0.3, 0.9)):
        for models in ((first, second), (second, first)):
            written = write(cache, Setting(verifier, int(models[0] is second)), 2)
            expected = CoSDDecoder(models[0], models[1], verifier=verifier).generate(prompts, **wanted)
            assert [each.text for each in written] == [each.text for each in expected]


def test_what_is_known_is_not_computed_again_whoever_drafts() -> None:
    two = PAIRS[0]
    cache = ReplayCache(two, PROMPTS, {"max_new_tokens": 12})
    written = write(cache, Setting(DraftVerifier()))
    with counted_passes(*two) as passes:
        assert write(cache, Setting(AssistantVerifier(), 1)) == written
        assert write(cache, Setting(RuleVerifier(0.0))) == written
    assert not passes
    assert cache.replayed > cache.computed


def test_a_log_lets_an_interrupted_run_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    def opened() -> ReplayCache:
        return ReplayCache(PAIRS[0], PROMPTS, {"max_new_tokens": 12}, temperatures=HEATS, log=log)

    chosen = [
        Setting(verifier, swapped, heat)
        for verifier in (RuleVerifier(0.9), AssistantVerifier())
        for swapped in (0, 1)
        for heat in (0, 1)
    ]
    first = opened()
    written = [write(first, setting) for setting in chosen]
    log.write_bytes(log.read_bytes() + b'{"key": "cut o')
    second = opened()
    assert [write(second, setting) for setting in chosen] == written
    assert second.computed == 0
    good = json.loads(log.read_text().splitlines()[0])
    for confidences in ("ab", [[0.5]], [[None], [0.5]], 3, []):
        good["predictions"][0][2] = confidences
        log.write_text(json.dumps(good) + "\n")
        with pytest.raises(EvaluationFileError, match=r"log\.jsonl, line 1"):
            opened()
    log.write_bytes(b'{"key": 1}\n')
    with pytest.raises(EvaluationFileError, match=r"log\.jsonl, line 1"):
        opened()


def test_only_greedy_texts_are_replayed() -> None:
    with pytest.raises(InvalidOptionError, match=r"temperature=0\.5"):
        ReplayCache(PAIRS[0], PROMPTS, {"temperature": 0.5})
    with pytest.raises(InvalidOptionError, match="calibrated"):
        ReplayCache(PAIRS[0], PROMPTS, {"repetition_penalty": 1.5}, temperatures=HEATS)


# Folds and choices


def test_folds_are_even_in_every_group_and_equal_prompts_share_one() -> None:
    items = unasked_task(11).items
    doubled = (*items, *reversed(items))
    fold_of = divide(doubled, 5, seed=3)
    assert fold_of[: len(items)] == fold_of[len(items) :][::-1]
    for group in {item.group for item in items}:
        sizes = Counter(fold for fold, item in zip(fold_of, items, strict=False) if item.group == group)
        assert set(sizes.values()) == {2, 3}
    assert fold_of != divide(doubled, 5, seed=4)


@pytest.mark.parametrize(("count", "folds", "words"), [(1, 5, "not 3"), (9, 2, "folds=2"), (9, True, "True")])
def test_folds_that_cannot_be_are_refused(count: int, folds: int, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        divide(unasked_task(count).items, folds, seed=0)


rng = np.random.default_rng(0)


def made_up(*shares: float, items: int = 200, names: Sequence[str] = (), folds: int = 5) -> Table:
    """Both models alone, then rules as they come and others, of about these accuracies."""
    every = {each.name: each for each in make_candidates(("A", "B"))}
    candidates = tuple(every[name] for name in ("A alone", "B alone", *names))
    right = np.array([rng.permutation(items) < share * items for share in shares])
    inner = np.broadcast_to(right, (folds, *right.shape))
    return Table(candidates, np.arange(items) % folds, right, inner)


DEFAULT, OTHER = "rule (0.5, 0.5), A drafts", "rule (0.9, 0.25), A drafts"
HOT, TREE = "rule (0.5, 0.5), calibrated, A drafts", "tree, A drafts"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 4))
def test_a_choice_does_not_depend_on_the_fold_that_judges_it(seed: int, fold: int) -> None:
    draw = np.random.default_rng(seed)
    candidates = make_candidates(("A", "B"), alphas=[0.3, 0.9], betas=[0.5])
    fold_of = np.arange(40) % 5
    right = draw.random((len(candidates), 40)) < draw.random((len(candidates), 1))
    inner = np.array([right ^ (draw.random(right.shape) < 0.1) for _ in range(5)])
    chosen = choose_nested(Table(candidates, fold_of, right, inner)).chosen[fold]
    own = fold_of == fold
    right[:, own] = draw.random(right[:, own].shape) < 0.5
    inner[:, :, own] = draw.random(inner[:, :, own].shape) < 0.5
    assert choose_nested(Table(candidates, fold_of, right, inner)).chosen[fold] == chosen


def test_what_a_choice_is_made_by_was_not_learned_from_the_fold_that_judges_it(
    bundled: CoSDDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Table] = []
    monkeypatch.setattr(tuner, "choose_nested", lambda each: tables.append(each) or choose_nested(each))
    clean = unasked_task(4)
    fold_of = divide(clean.items, 3, seed=0)
    poisoned = replace(
        clean,
        items=tuple(
            replace(item, answers=("zebra",), completion=" zebra zebra" * (1 + at % 2)) if not fold else item
            for at, (item, fold) in enumerate(zip(clean.items, fold_of, strict=True))
        ),
    )
    some = {"alphas": [0.3, 0.7], "betas": [0.5], "weights": [0.5], "folds": 3}
    for task in (clean, poisoned):
        tune(bundled, task, folder=tmp_path, **some)
    first, second = tables
    others = first.fold_of != 0
    assert np.array_equal(first.inner[0][:, others], second.inner[0][:, others])
    assert not np.array_equal(first.right[:, others], second.right[:, others])  # which may see that fold
    assert choose_nested(first).chosen[0] == choose_nested(second).chosen[0]


def test_of_candidates_within_noise_the_simplest_is_chosen() -> None:
    table = made_up(0.3, 0.4, 0.9, 0.9, 0.9, 0.9, names=[TREE, HOT, OTHER, DEFAULT])
    for without in range(4):
        right = table.right.copy()
        right[2 : 2 + without] = right[5 - without]
        right[6 - without :] = False
        best = table.candidates[choose(table.candidates, right)].name
        assert best in [DEFAULT, OTHER, HOT, TREE][without:]


def test_fusing_is_recommended_where_it_gains() -> None:
    table = made_up(0.35, 0.4, 0.9, 0.91, names=[DEFAULT, OTHER])
    advice = recommend(table, choose_nested(table))
    assert advice.fuse
    assert table.candidates[advice.recommended].name in (DEFAULT, OTHER)
    assert advice.sentences[0].startswith("Fuse: rule")


def test_the_default_is_recommended_unless_another_is_better_beyond_noise() -> None:
    table = made_up(0.3, 0.3, 0.9, 0.0, names=[DEFAULT, OTHER])
    right = table.right.copy()
    right[3] = right[2]
    right[3, np.flatnonzero(~right[3])[:1]] = True  # one question more
    assert choose(table.candidates, right) == 2
    advice = recommend(replace(table, right=right), choose_nested(table))
    assert advice.sentences[-1].startswith(f"{OTHER} had +0.5")
    right[3] = True
    assert choose(table.candidates, right) == 3


@pytest.mark.parametrize("better", [0, 1])
def test_the_better_model_alone_is_recommended_where_fusing_does_not_gain(better: int) -> None:
    shares = [0.5, 0.5, 0.5]
    shares[better] = 0.8
    table = made_up(*shares, names=[DEFAULT])
    advice = recommend(table, choose_nested(table))
    assert not advice.fuse
    assert advice.recommended == better
    assert f"Use {'AB'[better]} alone" in advice.sentences[0]


@pytest.mark.parametrize(("other", "sure"), [(0.4, True), (0.79, False)])
def test_the_advice_says_how_sure_it_is_which_model_is_better(other: float, sure: bool) -> None:
    table = made_up(0.8, other, 0.5, names=[DEFAULT])
    alone = recommend(table, choose_nested(table)).sentences[1]
    assert alone.startswith("A alone had 80.0 (73.9 to 85.0) percent right, +")
    assert "points against B alone." in alone
    assert ("do not show which" in alone) != sure


def test_every_group_gets_advice_from_its_own_questions() -> None:
    facts, code = made_up(0.3, 0.3, 0.9, names=[DEFAULT]), made_up(0.2, 0.9, 0.5, names=[DEFAULT])
    few = made_up(0.5, 0.5, 0.5, names=[DEFAULT], items=6)
    parts = (facts, code, few)
    table = Table(
        facts.candidates,
        np.concatenate([each.fold_of for each in parts]),
        np.concatenate([each.right for each in parts], axis=1),
        np.concatenate([each.inner for each in parts], axis=2),
    )
    groups = ["facts"] * 200 + ["code"] * 200 + ["few"] * 6
    overall = recommend(table, choose_nested(table))
    found = {name: advice for name, (_, _, advice) in recommend_per_group(table, groups, overall).items()}
    assert found["facts"].sentences[0] == f"Fuse: {DEFAULT}."
    assert found["code"].sentences[0].startswith("Use B alone")
    assert list(found) == ["facts", "code"]
    assert recommend_per_group(facts, ["facts"] * 200, overall) == {}
    for name, part in (("facts", facts), ("code", code)):
        assert found[name] == recommend(part, choose_nested(part))


@pytest.mark.parametrize(("facts", "shown"), [(0.6, True), (0.34, False)])
def test_a_group_goes_its_own_way_only_where_its_questions_show_why(facts: float, shown: bool) -> None:
    parts = made_up(facts, 0.3, 0.1, names=[DEFAULT]), made_up(0.2, 0.9, 0.1, names=[DEFAULT], items=400)
    table = Table(
        parts[0].candidates,
        np.concatenate([each.fold_of for each in parts]),
        np.concatenate([each.right for each in parts], axis=1),
        np.concatenate([each.inner for each in parts], axis=2),
    )
    overall = recommend(table, choose_nested(table))
    assert overall.sentences[0].startswith("Use B alone")
    found = recommend_per_group(table, ["facts"] * 200 + ["code"] * 400, overall)["facts"][2]
    assert table.candidates[found.recommended].name == ("A alone" if shown else "B alone")
    assert any("may be chance" in each for each in found.sentences) != shown


def test_a_gain_that_may_be_noise_is_called_so() -> None:
    table = made_up(0.5, 0.3, 0.75, items=20, names=[DEFAULT])
    right = table.right.copy()
    right[2] = right[0]
    right[2, np.flatnonzero(~right[0])[:2]] = True
    table = Table(table.candidates, table.fold_of, right, np.broadcast_to(right, (5, *right.shape)))
    advice = recommend(table, choose_nested(table))
    assert not advice.fuse


def test_harm_is_called_harm() -> None:
    table = made_up(0.8, 0.1, 0.3, names=[DEFAULT])
    misled = table.inner.copy()
    misled[:, 2] = True
    advice = recommend(replace(table, inner=misled), choose_nested(replace(table, inner=misled)))
    assert not advice.fuse
    assert "worse" in advice.sentences[0]


def test_where_nothing_is_to_gain_fusing_is_hardly_ever_recommended() -> None:
    draw, wrong = np.random.default_rng(1), 0
    candidates = make_candidates(("A", "B"))
    for _ in range(60):
        right = draw.random((len(candidates), 150)) < 0.6
        table = Table(candidates, np.arange(150) % 5, right, np.broadcast_to(right, (5, *right.shape)))
        wrong += recommend(table, choose_nested(table)).fuse
    assert wrong <= 3


def test_a_pair_that_is_too_sure_is_warned_of_and_told_what_helps() -> None:
    table = made_up(0.4, 0.4, 0.4, 0.9, names=[DEFAULT, HOT])
    honest = CalibrationSummary("A", 0.9, 0.9, 0.01, 1.0, 0.01)
    sure = CalibrationSummary("B", 0.99, 0.6, 0.39, 5.0, 0.02)
    fires, never = ReplacementRate("A", 1000, 100, 50), ReplacementRate("B", 1000, 100, 1)
    assert warn(table, [fires], [honest]) == ()
    said = warn(table, [fires, never], [honest, sure])
    assert [each.split()[0] for each in said] == ["B", "The", "Calibration"]
    assert "overconfident" in said[0]
    assert "1 of the 100" in said[1]
    assert "helps" in said[2]
    cold = made_up(0.4, 0.4, 0.4, 0.4, names=[DEFAULT, HOT])
    assert "Neither calibration nor" in warn(cold, [never], [sure])[-1]
    other = made_up(0.4, 0.4, 0.4, 0.9, 0.4, names=[DEFAULT, OTHER, HOT])
    assert "Other thresholds" in warn(other, [never], [sure])[-1]
    assert "completions" in warn(made_up(0.4, 0.4, 0.4, names=[DEFAULT]), [never], [])[-1]


# The whole


@pytest.fixture(scope="module")
def bundled() -> CoSDDecoder:
    return CoSDDecoder(*load_pair())


@pytest.fixture(scope="module")
def tuned(bundled: CoSDDecoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    folder = tmp_path_factory.mktemp("tuned")
    tuning = tune(
        bundled, unasked_task(8), folder=folder, alphas=[0.1, 0.5, 0.9], betas=[0.5, 1.0], weights=[0.5],
        folds=4,
    )  # fmt: skip
    return tuning, folder


def test_every_candidate_is_judged_in_both_roles(tuned: tuple[Tuning, Path]) -> None:
    tuning = tuned[0]
    kinds = Counter((line.verifier, line.draft, line.calibrated) for line in tuning.lines)
    assert kinds == {
        **{("draft", swapped, False): 1 for swapped in (False, True)},
        **{("rule", swapped, heat): 6 for swapped in (False, True) for heat in (False, True)},
        **{("tree", swapped, heat): 2 for swapped in (False, True) for heat in (False, True)},
        ("average", False, False): 1,
    }
    assert tuning.fuse
    assert tuning.gain.low > 0.3
    assert set(tuning.chosen) <= {line.name for line in tuning.lines}
    assert [each.name for each in tuning.groups] == list(unasked_task(8).groups)
    assert [each.questions for each in tuning.groups] == [8, 8, 8]
    assert tuning.computed < tuning.replayed / 20


def test_cross_validated_figures_are_those_of_real_decoding(bundled, tuned: tuple[Tuning, Path]) -> None:
    task = unasked_task(8)
    for name, swapped, verifier in (
        ("facts alone", False, DraftVerifier()),
        ("arithmetic alone", True, DraftVerifier()),
        ("rule (0.5, 0.5), facts drafts", False, RuleVerifier()),
        ("rule (0.1, 1), arithmetic drafts", True, RuleVerifier(0.1, 1.0)),
        ("average (0.5 facts)", False, AverageVerifier()),
    ):
        models = bundled.models[::-1] if swapped else bundled.models
        texts = CoSDDecoder(models[0], models[1], verifier=verifier).generate(
            [item.prompt for item in task.items], **task.options
        )
        right = sum(item.is_right(each.text) for item, each in zip(task.items, texts, strict=True))
        assert tuned[0].line(name).right == right


def test_an_interrupted_tuning_goes_on(bundled, tuned: tuple[Tuning, Path]) -> None:
    tuning, folder = tuned
    again = tune(
        bundled, unasked_task(8), folder=folder, alphas=[0.1, 0.5, 0.9], betas=[0.5, 1.0], weights=[0.5],
        folds=4,
    )  # fmt: skip
    assert again.computed == 0
    assert replace(again, computed=tuning.computed, replayed=tuning.replayed) == tuning


def test_a_report_shows_every_rule_and_is_plain_json(tuned: tuple[Tuning, Path], tmp_path: Path) -> None:
    tuning = tuned[0]
    assert tuning.heat_maps().count("alpha \\ beta") == 4
    written = tuning.save(tmp_path)
    assert [path.name for path in written] == ["report.json", "tuned.json"]
    report = json.loads(written[0].read_text())
    assert report["recommended"] == tuning.recommended
    assert len(report["lines"]) == len(tuning.lines)
    assert len(tuning.highlights) < len(tuning.lines)


def test_the_heat_maps_can_be_drawn(tuned: tuple[Tuning, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert tuned[0].save(tmp_path, plot=True)[-1].read_bytes().startswith(b"\x89PNG")


def test_without_completions_nothing_is_learned_and_that_is_said(bundled, tmp_path: Path) -> None:
    task = unasked_task(3)
    bare = replace(task, items=tuple(replace(item, completion=None) for item in task.items))
    tuning = tune(bundled, bare, folder=tmp_path, alphas=[0.5], betas=[0.5], weights=[0.5], folds=3)
    assert {line.verifier for line in tuning.lines} == {"draft", "rule", "average"}
    assert not any(line.calibrated for line in tuning.lines)
    assert "no question has a completion" in tuning.notes[0].lower()


def test_where_logits_are_processed_nothing_is_learned_and_that_is_said(bundled, tmp_path: Path) -> None:
    more = {"alphas": [0.5], "betas": [0.5], "weights": [0.5], "folds": 3}
    tuning = tune(bundled, unasked_task(1), folder=tmp_path, options={"repetition_penalty": 1.1}, **more)
    assert not any(line.calibrated for line in tuning.lines)
    assert "logits are processed" in tuning.notes[0]


def test_a_task_may_hold_completions(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text(
        '{"prompt": "1+1?", "answer": "2", "completion": " 1+1=2"}\n{"prompt": "x", "answer": "y"}'
    )
    assert [item.completion for item in read_task(path).items] == [" 1+1=2", None]
    path.write_text('{"prompt": "1+1?", "answer": "2", "completion": 2}')
    with pytest.raises(EvaluationFileError, match=r"line 1: completion=2"):
        read_task(path)


# Settings files

NODES = (Split("p", 0.6, 1, 2), Leaf(True), Leaf(False))
TREE_SETTINGS = {
    "verifier": TreeVerifier(NODES, {"pair": ["a", "b"]}).to_dict(),
    "calibration": [1.5, 0.8],
}
RULE_SETTINGS = {"verifier": "rule", "alpha": 0.9, "beta": 0.25, "max_new_tokens": 20, "stop": ["="]}


@pytest.fixture(params=[TREE_SETTINGS, RULE_SETTINGS], ids=["tree", "rule"])
def file(request: pytest.FixtureRequest, pair, tmp_path: Path) -> tuple[Path, str]:  # noqa: F811
    """A settings file, roles swapped, and what it makes the pair answer."""
    path = tmp_path / "tuned.json"
    names = {"draft_model": pair[1], "assistant_model": pair[0], "dtype": "float32"}
    path.write_text(json.dumps({**names, **request.param}))
    facts, arithmetic = load_pair()
    if request.param is RULE_SETTINGS:
        decoder = CoSDDecoder(arithmetic, facts, verifier=RuleVerifier(0.9, 0.25))
        return path, decoder.generate(IRON, max_new_tokens=20, stop=["="]).text
    tree = TreeVerifier(NODES)
    decoder = CoSDDecoder(arithmetic, facts, verifier=tree, calibration=[1.5, 0.8])
    return path, decoder.generate(IRON).text


def test_a_settings_file_goes_through_every_door(file: tuple[Path, str], cosd, tmp_path: Path) -> None:  # noqa: F811
    path, expected = file
    found = read_settings(path)
    own = Settings(**found)
    assert own.decoder().generate(IRON, **own.generation_options()).text == expected
    assert cosd("generate", "--settings-file", str(path), IRON).out == expected + "\n"
    evaluated = cosd(
        "evaluate", "--settings-file", str(path), "--task", "demo", "--questions", "1", "--method", "draft",
        "--out", str(tmp_path / "evaluated"),
    )  # fmt: skip
    assert evaluated.code == 0
    assert "tuned" in evaluated.out


def test_a_settings_file_makes_a_model_of_langchain(file: tuple[Path, str]) -> None:
    langchain_cosd = pytest.importorskip("langchain_cosd")
    path, expected = file
    assert langchain_cosd.CoSDLLM(**read_settings(path)).invoke(IRON) == expected
    assert (
        langchain_cosd.ChatCoSD(**read_settings(path)).calibration
        == Settings(**read_settings(path)).calibration
    )


def test_a_settings_file_makes_a_model_of_llama_index(file: tuple[Path, str]) -> None:
    llama_index_cosd = pytest.importorskip("llama_index_cosd")
    path, expected = file
    assert llama_index_cosd.CoSDLLM(**read_settings(path)).complete(IRON).text == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{", "cannot read"),
        ("[]", "JSON object"),
        ('{"alfa": 0.3}', "'alpha'"),
        ('{"alpha": -1}', "alpha=-1"),
        ('{"alpha": "high"}', "alpha='high'"),
        ('{"verifier": {"name": "tree", "nodes": [{"feature": "r"}]}}', "node"),
        ('{"verifier": {"name": "vote"}}', "vote"),
        ('{"verifier": "average", "alpha": 0.3}', "alpha=0.3"),
        ('{"calibration": [0, 1]}', "calibration"),
        ('{"max_new_tokens": 0}', "max_new_tokens=0"),
    ],
)
def test_an_error_in_a_settings_file_names_file_and_field(tmp_path: Path, content, words: str) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EvaluationFileError) as caught:
        read_settings(path)
    assert "broken.json" in str(caught.value)
    assert words in str(caught.value)


def test_settings_of_several_assistants_need_not_name_them(tmp_path: Path) -> None:
    path = tmp_path / "three.json"
    path.write_text('{"calibration": [1.0, 2.0, 3.0]}')
    assert read_settings(path) == {"calibration": [1.0, 2.0, 3.0]}


def test_flags_go_before_a_settings_file(cosd, pair, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"draft_model": pair[0], "assistant_model": pair[1], **RULE_SETTINGS}))
    alone = cosd("generate", "--settings-file", str(path), "--verifier", "draft", IRON)
    facts, arithmetic = load_pair()
    expected = CoSDDecoder(facts, arithmetic, verifier="draft").generate(IRON, max_new_tokens=20, stop=["="])
    assert alone.out == expected.text + "\n"


# The command


def test_tuning_ends_in_advice_and_a_file_that_works(cosd, tmp_path: Path) -> None:  # noqa: F811
    flags = ["--alpha", "0.5", "--alpha", "0.9", "--beta", "0.5", "--weight", "0.5", "--folds", "3"]
    output = cosd("tune", "--questions", "6", *flags, "--out", str(tmp_path))
    assert output.code == 0, output.err
    for words in (
        "Fuse: rule",
        "percent right, facts drafts",
        "what was chosen",
        "predictions were computed",
    ):
        assert words in output.out
    settings = read_settings(tmp_path / "tuned.json")
    assert settings["verifier"] == "rule"
    assert "33" in cosd("generate", "--settings-file", str(tmp_path / "tuned.json"), IRON).out
    again = cosd("tune", "--questions", "6", *flags, "--out", str(tmp_path), "--json")
    assert json.loads(again.out)["computed"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tune", "--draft", "a", "--assistant", "b"], 2, "--task is missing"),
        (["tune", "--task", "none.jsonl"], 1, "none.jsonl"),
        (["tune", "--questions", "1"], 2, "folds=5"),
        (["tune", "--folds", "2"], 2, "--folds"),
        (["tune", "--questions", "3", "--alpha", "-1"], 2, "alpha=-1"),
        (["tune", "--settings-file", "none.json"], 1, "none.json"),
        (["generate", "--settings-file", "none.json", "x"], 1, "none.json"),
    ],
)
def test_errors_of_tuning_are_one_line(cosd, tmp_path: Path, arguments, code: int, words: str) -> None:  # noqa: F811
    output = cosd(*arguments, *(["--out", str(tmp_path)] if arguments[0] == "tune" else []))
    assert output.code == code
    assert words in output.err
    assert "Traceback" not in output.err
