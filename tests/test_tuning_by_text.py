"""Claim: models with different tokenizers, and three models, are tuned as they decode."""

import json
from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier, read_settings
from cosd_core.evaluation import unasked_task
from cosd_core.tuning import ReplayCache, Setting, tune
from examples.bundled_pairs import load_words_pair
from tests.grids import exhaustive
from tests.models import ascii_model, counted_passes
from tests.test_translated import ascii_over, random_over
from tests.test_tuning import options, verifiers
from tests.tokenizers import ZOO

PROMPTS = ["The quick", "Paris is in", "1, 2,"]
HEATS = ((1.0, 0.5, 3.0), (1.0, 2.0, 0.7), (1.0, 0.9, 1.5))
GROUPS = {
    "characters": ("characters", "gpt2-400"),
    "byte pairs": ("gpt2-2000", "llama2"),
    "three": ("gpt2-400", "characters", "gpt2-400"),
    "three tokenizers": ("single-bytes", "gpt2-2000", "llama3"),
}


@cache
def group(name: str) -> tuple[LanguageModel, ...]:
    if name == "one tokenizer":
        return tuple(ascii_model(seed=seed) for seed in (11, 12, 13))
    return tuple(ascii_over(ZOO[each](), seed=20 + at) for at, each in enumerate(GROUPS[name]))


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["one tokenizer", *GROUPS]),
    options,
    st.lists(st.tuples(verifiers, st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4),
)
def test_a_replayed_setting_writes_what_it_would_have_decoded(name, wanted, chosen) -> None:
    models = group(name)
    heats = HEATS[: len(models)]
    known = {**wanted, "eos_token_id": wanted.get("eos_token_id")}
    cached = ReplayCache(models, PROMPTS, known, temperatures=heats, batch_size=2)
    for verifier, draft, heat in chosen:
        setting = Setting(verifier, draft % len(models), heat)
        tasks = [(setting, prompt) for prompt in range(len(PROMPTS))]
        written = cached.generate(tasks)
        with counted_passes(*models) as passes:
            assert cached.generate(tasks) == written
        assert not passes
        order = [setting.draft, *(at for at in range(len(models)) if at != setting.draft)]
        decoder = CoSDDecoder(
            models[order[0]], [models[at] for at in order[1:]], verifier=verifier,
            calibration=[heats[at][heat] for at in order],
        )  # fmt: skip
        expected = decoder.generate(PROMPTS, **known)
        assert [(each.text, each.finish_reason, each.tokens) for each in written] == [
            (each.text, each.finish_reason, len(each.tokens)) for each in expected
        ]


def test_texts_that_fill_a_window_are_decoded() -> None:
    draft = ascii_over(ZOO["gpt2-400"](), seed=1)
    assistant = random_over(ZOO["characters"](), seed=2, max_position_embeddings=40)
    models = (draft, assistant)
    wanted = {"max_new_tokens": 25, "eos_token_id": []}
    cached = ReplayCache(models, PROMPTS, wanted)
    for verifier in (RuleVerifier(0.0), RuleVerifier(0.02), RuleVerifier(0.9)):
        written = cached.generate([(Setting(verifier), prompt) for prompt in range(3)])
        expected = CoSDDecoder(draft, assistant, verifier=verifier).generate(PROMPTS, **wanted)
        assert [each.text for each in written] == [each.text for each in expected]
    assert cached.decoded


# The whole


FEW = {"alphas": [0.5, 0.9], "betas": [0.5], "weights": [0.5], "folds": 3}


@exhaustive
def test_the_bundled_pair_with_two_tokenizers_is_tuned(tmp_path: Path) -> None:
    facts, arithmetic = load_words_pair()
    models, count = (facts, arithmetic, facts), 3
    tuning = tune(CoSDDecoder(models[0], models[1:]), unasked_task(4), folder=tmp_path, **FEW)
    names = {line.verifier for line in tuning.lines}
    assert names == {"draft", "rule", "tree"}
    assert "different tokenizers" in tuning.notes[-1]
    assert {line.draft for line in tuning.lines} == set(range(count))
    task = unasked_task(4)
    for line in tuning.lines:
        if line.verifier != "rule" or line.calibrated:
            continue
        order = [line.draft, *(at for at in range(count) if at != line.draft)]
        decoder = CoSDDecoder(
            models[order[0]], [models[at] for at in order[1:]], verifier=RuleVerifier(line.alpha, line.beta)
        )
        texts = decoder.generate([item.prompt for item in task.items], **task.options)
        right = sum(item.is_right(each.text) for item, each in zip(task.items, texts, strict=True))
        assert line.right == right
    assert tuning.fuse
    tuning.save(tmp_path)
    saved = read_settings(tmp_path / "tuned.json")
    assert len(saved["assistant_model"]) == count - 1
    again = tune(CoSDDecoder(models[0], models[1:]), unasked_task(4), folder=tmp_path, **FEW)
    assert again.computed == 0
    assert json.loads((tmp_path / "report.json").read_text())["decoded"] == 0
