"""One set of settings builds the decoder for every front door."""

import json
import re

import pytest

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    ChatOptions,
    CoSDError,
    DraftVerifier,
    FixedSchedule,
    GenerationOptions,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    RuleVerifier,
    Schedule,
    TreeVerifier,
    Verifier,
)
from cosd_core.frontend.call_settings import CallSettings
from cosd_core.frontend.framework_model import FrameworkModel
from cosd_core.frontend.settings import Settings
from cosd_core.verifiers import Leaf


class ChatModel(ChatOptions, FrameworkModel):
    """The core of a framework's chat model."""


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


@pytest.mark.parametrize(
    "verifier",
    [
        RuleVerifier(0.9, 0.2),
        AverageVerifier(0.3),
        DraftVerifier(),
        TreeVerifier((Leaf(True),), {"by": "me"}),
    ],
    ids=lambda verifier: verifier.name,
)
@pytest.mark.parametrize("schedule", [FixedSchedule(), AdaptiveSchedule(2.0)], ids=lambda each: each.name)
def test_what_parts_say_of_themselves_builds_them_again(
    draft: LanguageModel, assistant: LanguageModel, verifier: Verifier, schedule: Schedule
) -> None:
    told = json.loads(json.dumps({"verifier": verifier.to_dict(), "schedule": schedule.to_dict()}))
    decoder = Settings(draft_model=draft, assistant_model=assistant, **told).decoder()
    assert (decoder.verifier, decoder.schedule) == (verifier, schedule)


@pytest.mark.parametrize(
    "grammar",
    [Grammar.regex("a+b"), Grammar.lark('start: "a"'), Grammar.json_schema({"type": "integer"})],
    ids=lambda grammar: grammar.kind,
)
def test_what_a_grammar_says_of_itself_builds_it_again(grammar: Grammar) -> None:
    assert GenerationOptions(grammar=json.loads(json.dumps(grammar.to_dict()))).grammar == grammar


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"verifier": {"name": "rule", "gamma": 1}}, "gamma"),
        ({"verifier": {"name": "ruler"}}, "should name one of rule"),
        ({"verifier": {"alpha": 0.5}}, "should name one of rule"),
        ({"verifier": {"name": "rule", "alpha": -3}}, "alpha=-3"),
        ({"verifier": {"name": "tree", "nodes": [{"replace": 1}]}}, "node 0"),
        ({"schedule": {"name": "adaptive", "cost": 1}}, "cost"),
        ({"schedule": {"name": "fast"}}, "should name one of adaptive"),
    ],
)  # fmt: skip
def test_what_describes_no_part_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(CoSDError, match=re.escape(words)):
        Settings(draft_model="a", assistant_model="b", **settings)


# Frozen settings behind assignable fields


def test_a_copy_with_other_values_is_validated_and_has_its_own_method() -> None:
    settings = Settings(draft_model="a", assistant_model="b", alpha=0.3)
    assert settings.model_copy(update={"alpha": 0.9}).method()["verifier"] == RuleVerifier(0.9)
    assert settings.method()["verifier"] == RuleVerifier(0.3)
    with pytest.raises(InvalidOptionError, match="top_p=7"):
        settings.model_copy(update={"top_p": 7})
    with pytest.raises(InvalidOptionError, match=r"alpha=0\.3 is a setting"):
        settings.model_copy(update={"verifier": "draft"})


def test_settings_are_made_again_only_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = ChatModel(draft_model="a", assistant_model=["b"], stop="x")
    settings = llm._settings
    made: list[object] = []
    post_init = CallSettings.model_post_init
    monkeypatch.setattr(
        CallSettings, "model_post_init", lambda self, context: made.append(self) or post_init(self, context)
    )
    assert llm._settings is settings
    assert llm._call().settings is settings
    assert llm._with_options({}) is llm
    changed = llm._with_options({"max_tokens": 3, "chat_template_kwargs": {"a": 1}})
    assert (changed._settings.max_new_tokens, changed._settings.stop) == (3, ("x",))
    assert changed._settings.method() is settings.method()
    assert made == []
    expected = CallSettings(
        draft_model="a", assistant_model=["b"], stop="x", max_new_tokens=3, chat_template_kwargs={"a": 1}
    )
    assert changed._settings.identity == expected.identity
    assert llm._settings is settings
    llm.alpha = 0.9
    assert llm._settings.method()["verifier"] == RuleVerifier(0.9)
    assert settings.method()["verifier"] == RuleVerifier()


def test_lists_and_dictionaries_may_be_changed_in_place(
    draft: LanguageModel, assistant: LanguageModel
) -> None:
    llm = ChatModel(draft_model=draft, assistant_model=[assistant], chat_template_kwargs={"a": {}})
    decoder = llm._decoder()
    llm.chat_template_kwargs["a"]["b"] = 1
    assert llm._settings.chat_template_kwargs == {"a": {"b": 1}}
    assert llm._decoder() is decoder
    llm.assistant_model.append(draft)
    assert llm._decoder().assistants == (assistant, draft)


def test_a_tree_file_is_read_again_when_it_has_changed(
    draft: LanguageModel, assistant: LanguageModel, tmp_path
) -> None:
    path = tmp_path / "tree.json"
    TreeVerifier((Leaf(True),)).save(path)
    llm = FrameworkModel(draft_model=draft, assistant_model=assistant, verifier="tree", tree_path=str(path))
    decoder = llm._decoder()
    assert llm._decoder() is decoder
    TreeVerifier((Leaf(False),)).save(path)
    assert llm._decoder().verifier == TreeVerifier((Leaf(False),))
    assert llm._decoder().draft is decoder.draft
