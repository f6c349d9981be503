"""One set of settings builds the decoder for every front door."""

import re

import pytest

from cosd_core import (
    AverageVerifier,
    FixedSchedule,
    InvalidOptionError,
    LanguageModel,
    RuleVerifier,
    TreeVerifier,
    Verifier,
)
from cosd_core.settings import Settings
from cosd_core.verifiers import Leaf


def test_settings_build_the_decoder_they_describe(draft: LanguageModel, assistant: LanguageModel) -> None:
    settings = Settings(
        draft_model=draft,
        assistant_model=[assistant, assistant],
        alpha=0.3,
        schedule="fixed",
        draft_length=3,
        max_new_tokens=5,
        stop="x",
    )
    decoder = settings.decoder()
    assert decoder.draft is draft
    assert decoder.assistants == (assistant, assistant)
    assert decoder.verifier == RuleVerifier(0.3, 0.5)
    assert decoder.schedule == FixedSchedule()
    assert decoder.draft_length == 3
    generation = decoder.generate("hello", **settings.generation_options())
    assert len(generation.token_ids) <= 5


def test_verifier_settings(draft: LanguageModel, assistant: LanguageModel, tmp_path) -> None:
    tree = TreeVerifier((Leaf(True),))
    tree.save(tmp_path / "tree.json")

    def verifier(**settings: object) -> Verifier:
        return Settings(draft_model=draft, assistant_model=assistant, **settings).decoder().verifier

    assert verifier() == RuleVerifier()
    assert verifier(verifier="average", weight=0.7) == AverageVerifier(0.7)
    assert verifier(verifier="tree", tree_path=str(tmp_path / "tree.json")) == tree
    assert verifier(verifier=RuleVerifier(0.9)) == RuleVerifier(0.9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"verifier": "average", "alpha": 0.4}, "alpha=0.4 is a setting of verifier=\"rule\""),
        ({"tree_path": "tree.json"}, "tree_path='tree.json' is a setting of verifier=\"tree\""),
        ({"verifier": RuleVerifier(), "beta": 0.4}, "beta=0.4"),
        ({"verifier": "tree"}, "needs a tree"),
        ({"alhpa": 0.4}, "did you mean 'alpha'"),
    ],
)  # fmt: skip
def test_settings_that_the_verifier_has_not_are_refused(
    draft: LanguageModel, assistant: LanguageModel, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidOptionError, match=re.escape(words)):
        Settings(draft_model=draft, assistant_model=assistant, **settings).decoder()


def test_a_missing_model_is_named() -> None:
    with pytest.raises(InvalidOptionError, match="draft_model is missing"):
        Settings(assistant_model="x")
