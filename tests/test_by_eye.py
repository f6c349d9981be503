"""Claim: on models small enough to check by eye, every decision is the one that the method states.

The models look at the last word alone. What follows it, and how probably, is written down in each test.
"""

from math import inf, nextafter
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from cosd_core import (
    AverageVerifier,
    CoSDDecoder,
    FixedSchedule,
    Generation,
    LanguageModel,
    RuleVerifier,
    TreeVerifier,
    Verifier,
)
from cosd_core.verifiers import Leaf, Split
from tests.models import table_model, word_tokenizer

WORDS = ("<eos>", "the", "cat", "dog", "fish", "sat", "ran", "on", "mat", "away")
END = 0
SCHEDULES = [("adaptive", 1), ("adaptive", 8), ("fixed", 1), ("fixed", 3), ("fixed", 8)]
"""Kinds and K. One text for all of them, so each test asks ``write`` for the text of all five."""

Row = dict[str, float]


def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(*WORDS)


def model(name: str, **rows: Row) -> LanguageModel:
    return table_model(tokenizer(), rows, name=name)


def write(
    draft: LanguageModel, *assistants: LanguageModel, verifier: str | Verifier = "rule", prompt: str = "the",
    **options: Any,
) -> Generation:  # fmt: skip
    """Decode under every schedule, see that all give one text, and return the paper's (fixed, K = 8)."""
    options = {"max_new_tokens": 6} | options
    generations = [
        CoSDDecoder(draft, assistants, verifier=verifier, schedule=schedule, draft_length=length).generate(
            prompt, **options
        )
        for schedule, length in SCHEDULES
    ]
    assert len({each.token_ids for each in generations}) == 1
    assert len({tuple(token.source for token in each.tokens) for each in generations}) == 1
    return generations[-1]


def words(generation: Generation) -> list[str]:
    return [WORDS[token] for token in generation.token_ids]


def writers(generation: Generation) -> list[int | None]:
    return [token.assistant_index if token.source == "assistant" else None for token in generation.tokens]


# the -> cat (unsure) -> sat (unsure) -> end (sure)
UNSURE = model(
    "unsure",
    the={"cat": 0.4, "dog": 0.3, "fish": 0.3},
    cat={"sat": 0.4, "ran": 0.35, "on": 0.25},
    dog={"sat": 0.4, "ran": 0.35, "on": 0.25},
    sat={"<eos>": 0.9, "on": 0.1},
    ran={"<eos>": 0.9, "away": 0.1},
)


class TestNeverAlwaysSometimes:
    def test_never_where_the_assistant_agrees(self) -> None:
        generation = write(UNSURE, UNSURE)
        assert words(generation) == ["cat", "sat", "<eos>"]
        assert (generation.stats.kept, generation.stats.replaced) == (3, 0)
        assert all(token.other_text is None for token in generation.tokens)

    def test_never_where_the_draft_is_sure(self) -> None:
        sure = model("sure", the={"cat": 0.8, "dog": 0.2}, cat={"sat": 0.6, "ran": 0.4})
        other = model("other", the={"dog": 1.0}, cat={"ran": 1.0})
        generation = write(sure, other)
        assert words(generation) == ["cat", "sat", "<eos>"]
        assert [token.other_text for token in generation.tokens] == [" dog", " ran", None]

    def test_always_where_the_draft_is_unsure_and_the_assistant_sure(self) -> None:
        other = model("other", the={"dog": 0.9, "cat": 0.1}, dog={"ran": 0.9, "sat": 0.1}, ran={"<eos>": 1.0})
        generation = write(UNSURE, other)
        assert words(generation) == ["dog", "ran", "<eos>"]
        assert writers(generation) == [0, 0, None]
        assert [token.other_text for token in generation.tokens[:2]] == [" cat", " sat"]

    def test_sometimes(self) -> None:
        """dog at 0.25 beats cat (0.25 > 0.5 * 0.4); ran at 0.15 does not beat sat (0.15 <= 0.5 * 0.4)."""
        other = model(
            "other",
            the={"dog": 0.25, "cat": 0.15, "fish": 0.15, "sat": 0.15, "ran": 0.15, "on": 0.15},
            dog={
                "ran": 0.15,
                "mat": 0.14,
                "away": 0.14,
                "cat": 0.14,
                "fish": 0.14,
                "sat": 0.14,
                "on": 0.14,
                "the": 0.01,
            },
        )
        generation = write(UNSURE, other)
        assert words(generation) == ["dog", "sat", "<eos>"]
        assert writers(generation) == [0, None, None]

    def test_after_a_replacement_the_rest_of_the_block_is_thrown_away(self) -> None:
        """cat sat <eos> was drafted; dog takes the first place; then sat <eos> is drafted again and kept."""
        other = model("other", the={"dog": 1.0}, dog={"sat": 1.0}, sat={"<eos>": 1.0})
        stats = write(UNSURE, other).stats
        assert (stats.drafted, stats.kept, stats.replaced, stats.discarded) == (5, 2, 1, 2)
        assert (stats.rounds, stats.assistant_passes, stats.draft_passes) == (2, 2, 5)


class TestEveryComparisonIsStrict:
    @pytest.mark.parametrize(("p", "q", "fires"), [
        (0.5, 1.0, False), (nextafter(0.5, 0), 1.0, True), (0.4, 0.2, False), (0.4, nextafter(0.2, 1), True),
        (0.0, 0.0, False), (0.49, 0.25, True), (0.51, 1.0, False),
    ])  # fmt: skip
    def test_of_the_rule(self, p: float, q: float, fires: bool) -> None:
        assert RuleVerifier(alpha=0.5, beta=0.5).replaces(p, q) is fires

    def test_p_equal_to_alpha_is_not_replaced(self) -> None:
        other = model("other", the={"dog": 1.0})
        p = write(UNSURE, other).tokens[0].p
        assert p == pytest.approx(0.4)
        assert words(write(UNSURE, other, verifier=RuleVerifier(alpha=p)))[0] == "cat"
        assert words(write(UNSURE, other, verifier=RuleVerifier(alpha=nextafter(p, inf))))[0] == "dog"

    def test_q_equal_to_beta_times_p_is_not_replaced(self) -> None:
        """Both models give their own token 0.4, so at beta = 1 neither is surer."""
        other = model("other", the={"dog": 0.4, "cat": 0.3, "fish": 0.3})
        first = write(UNSURE, other).tokens[0]
        assert first.p == first.q
        assert words(write(UNSURE, other, verifier=RuleVerifier(beta=1.0)))[0] == "cat"
        assert words(write(UNSURE, other, verifier=RuleVerifier(beta=nextafter(1.0, 0))))[0] == "dog"

    def test_alpha_0_never_replaces_even_at_p_0(self) -> None:
        assert not RuleVerifier(alpha=0.0, beta=0.0).replaces(0.0, 1.0)
        assert not RuleVerifier(alpha=0.0, beta=0.0).can_replace(0.0)

    def test_the_same_token_is_no_replacement_however_sure(self) -> None:
        other = model("other", the={"cat": 1.0}, cat={"sat": 1.0}, sat={"<eos>": 1.0})
        generation = write(UNSURE, other, verifier=RuleVerifier(alpha=1.01, beta=0.0))
        assert writers(generation) == [None, None, None]

    def test_a_tree_goes_left_at_its_threshold(self) -> None:
        tree = TreeVerifier((Split("q", 0.5, 1, 2), Leaf(False), Leaf(True)))
        assert [tree.replaces(0.1, q) for q in (0.5, 0.5000001, 0.4999999)] == [False, True, False]

    def test_a_tree_that_cannot_fire_at_this_p_is_not_asked(self) -> None:
        """Replaces where p <= 0.3 alone: cat at 0.4 is safe."""
        tree = TreeVerifier((Split("p", 0.3, 1, 2), Leaf(True), Leaf(False)))
        other = model("other", the={"dog": 1.0})
        assert words(write(UNSURE, other, verifier=tree)) == ["cat", "sat", "<eos>"]
        lazy = CoSDDecoder(UNSURE, other, verifier=tree).generate("the", max_new_tokens=6)
        assert lazy.stats.assistant_passes == 0


class TestSeveralAssistants:
    DOG = model("dog", the={"dog": 0.6, "cat": 0.4}, dog={"sat": 1.0}, fish={"sat": 1.0}, sat={"<eos>": 1.0})
    FISH = model(
        "fish", the={"fish": 0.7, "cat": 0.3}, dog={"sat": 1.0}, fish={"sat": 1.0}, sat={"<eos>": 1.0}
    )
    CAT = model("cat", the={"cat": 1.0}, dog={"sat": 1.0}, fish={"sat": 1.0}, cat={"sat": 1.0})

    def test_the_surest_wins(self) -> None:
        for assistants, writer in [((self.DOG, self.FISH), 1), ((self.FISH, self.DOG), 0)]:
            generation = write(UNSURE, *assistants)
            assert words(generation) == ["fish", "<eos>"]
            assert writers(generation)[0] == writer
            assert generation.tokens[0].q == pytest.approx(0.7)

    def test_ties_go_to_the_first(self) -> None:
        also_60 = model("also", the={"fish": 0.6, "cat": 0.4})
        assert words(write(UNSURE, self.DOG, also_60))[0] == "dog"
        assert words(write(UNSURE, also_60, self.DOG))[0] == "fish"

    def test_one_that_agrees_with_the_draft_is_no_veto(self) -> None:
        generation = write(UNSURE, self.CAT, self.DOG)
        assert words(generation)[0] == "dog"
        assert writers(generation)[0] == 1

    def test_a_token_named_twice_is_one_candidate_with_the_larger_q(self) -> None:
        surer = model("surer", the={"dog": 0.9, "cat": 0.1})
        generation = write(UNSURE, self.DOG, self.FISH, surer)
        assert words(generation)[0] == "dog"
        assert writers(generation)[0] == 2
        # Two at 0.6 do not add up against one at 0.7.
        assert words(write(UNSURE, self.DOG, self.DOG, self.FISH))[0] == "fish"

    def test_only_those_that_fire_are_candidates(self) -> None:
        """A tree that fires where q <= 0.65: fish at 0.7 is surer, but only dog at 0.6 fires."""
        tree = TreeVerifier((Split("q", 0.65, 1, 2), Leaf(True), Leaf(False)))
        assert words(write(UNSURE, self.FISH, self.DOG, verifier=tree))[0] == "dog"

    def test_the_assistant_baseline_follows_the_surest(self) -> None:
        sure = model("sure", the={"cat": 1.0}, dog={"sat": 1.0}, sat={"<eos>": 1.0})
        assert words(write(sure, self.DOG, verifier="assistant"))[0] == "dog"


class TestTheEnd:
    def test_an_unsure_end_is_replaced_and_the_text_goes_on(self) -> None:
        tired = model(
            "tired",
            the={"<eos>": 0.4, "cat": 0.3, "dog": 0.3},
            dog={"sat": 1.0},
            sat={"<eos>": 0.9, "on": 0.1},
        )
        other = model("other", the={"dog": 0.9, "cat": 0.1}, dog={"sat": 1.0}, sat={"<eos>": 1.0})
        generation = write(tired, other)
        assert words(generation) == ["dog", "sat", "<eos>"]
        assert generation.tokens[0].draft_id == END
        assert generation.finish_reason == "stop"

    def test_a_sure_end_stands(self) -> None:
        sure = model("sure", the={"<eos>": 0.6, "cat": 0.4})
        generation = write(sure, model("other", the={"dog": 1.0}))
        assert words(generation) == ["<eos>"]
        assert (generation.text, generation.finish_reason) == ("", "stop")

    def test_nothing_is_drafted_after_an_end(self) -> None:
        sure = model("sure", the={"cat": 1.0}, cat={"<eos>": 1.0})
        generation = write(sure, sure)
        assert generation.stats.drafted == 2

    def test_a_replacement_may_be_the_end(self) -> None:
        generation = write(UNSURE, model("other", the={"<eos>": 0.9, "cat": 0.1}))
        assert words(generation) == ["<eos>"]
        assert writers(generation) == [0]
        assert (generation.text, generation.finish_reason) == ("", "stop")
        assert generation.stats.discarded == 2

    def test_the_end_of_one_model_is_the_end_of_all(self) -> None:
        """The draft ends its texts with <eos>, this assistant with mat."""
        draft = model("draft", the={"mat": 1.0}, mat={"cat": 1.0}, cat={"<eos>": 1.0})
        other = model("other", the={"mat": 1.0})
        other.model.generation_config.eos_token_id = WORDS.index("mat")
        assert words(write(draft, other)) == ["mat"]
        assert words(write(draft, other, prompt="mat")) == ["cat", "<eos>"]

    def test_min_new_tokens_masks_the_end_before_the_confidence_is_read(self) -> None:
        """Without the end (0.6), cat has 0.3 of 0.4: p = 0.75."""
        tired = model("tired", the={"<eos>": 0.6, "cat": 0.3, "dog": 0.1}, cat={"<eos>": 1.0})
        other = model("other", the={"dog": 1.0})
        generation = write(tired, other, min_new_tokens=1)
        assert words(generation) == ["cat", "<eos>"]
        assert generation.tokens[0].p == pytest.approx(0.75)

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_max_new_tokens_ends_a_text(self, length: int) -> None:
        loop = model("loop", the={"cat": 1.0}, cat={"the": 1.0})
        generation = write(loop, loop, max_new_tokens=length)
        assert words(generation) == ["cat", "the", "cat"][:length]
        assert (generation.finish_reason, generation.stats.drafted) == ("length", length)


class TestBaselines:
    DRAFT = model("draft", the={"cat": 0.5, "dog": 0.4, "fish": 0.1})
    OTHER = model("other", the={"fish": 0.5, "dog": 0.4, "cat": 0.1})

    def test_average_picks_a_third_token(self) -> None:
        """cat 0.3, dog 0.4, fish 0.3."""
        generation = write(self.DRAFT, self.OTHER, verifier="average")
        assert words(generation) == ["dog", "<eos>"]
        assert writers(generation) == [0, None]

    @pytest.mark.parametrize(
        ("weight", "word"), [(0.0, "fish"), (0.2, "fish"), (0.5, "dog"), (0.8, "cat"), (1.0, "cat")]
    )
    def test_average_follows_its_weight(self, weight: float, word: str) -> None:
        """cat 0.1 + 0.4 w, dog 0.4, fish 0.5 - 0.4 w: fish up to w = 0.25, cat from 0.75."""
        assert words(write(self.DRAFT, self.OTHER, verifier=AverageVerifier(weight))) == [word, "<eos>"]

    def test_average_takes_the_assistants_mean(self) -> None:
        """Assistants: cat 0.5, dog 0.25, fish 0.25 on average. With the draft: cat 0.5, dog 0.325."""
        third = model("third", the={"cat": 0.9, "dog": 0.1})
        for assistants in ((self.OTHER, third), (third, self.OTHER)):
            assert words(write(self.DRAFT, *assistants, verifier="average")) == ["cat", "<eos>"]
        # Against the first alone it would be dog, as above; a third token goes to whoever likes it best.
        fourth = model("fourth", the={"dog": 0.5, "fish": 0.4, "cat": 0.1})
        assert writers(write(self.DRAFT, self.OTHER, fourth, verifier="average")) == [1, None]

    @pytest.mark.parametrize(
        ("verifier", "word"), [("draft", "cat"), ("assistant", "fish"), ("speculative", "fish")]
    )
    def test_greedy_singles(self, verifier: str, word: str) -> None:
        assert words(write(self.DRAFT, self.OTHER, verifier=verifier)) == [word, "<eos>"]


class TestLazyVerification:
    SURE = model("sure", the={"cat": 0.5, "dog": 0.5}, cat={"sat": 0.9, "ran": 0.1}, sat={"<eos>": 1.0})
    OTHER = model("other", the={"dog": 1.0}, cat={"ran": 1.0})

    def test_no_assistant_is_asked_while_p_reaches_alpha(self) -> None:
        generation = CoSDDecoder(self.SURE, self.OTHER).generate("the", max_new_tokens=6)
        assert words(generation) == ["cat", "sat", "<eos>"]
        assert generation.stats.assistant_passes == 0
        assert generation.stats.assistant_skipped == 3
        assert [(token.q, token.assistant_id, token.assistant_index) for token in generation.tokens] == [
            (None,) * 3
        ] * 3

    def test_the_fixed_schedule_always_asks(self) -> None:
        for verifier in ("rule", "draft"):
            decoder = CoSDDecoder(
                self.SURE, self.OTHER, verifier=verifier, schedule=FixedSchedule(), draft_length=2
            )
            generation = decoder.generate("the", max_new_tokens=6)
            assert generation.stats.assistant_passes == generation.stats.rounds == 2
            assert generation.stats.assistant_skipped == 0
            assert [token.q for token in generation.tokens] == pytest.approx([1.0, 1.0, 1.0])

    def test_one_question_settles_the_whole_block(self) -> None:
        """sat is safe, the words around it are not: whoever is asked about them is shown it too."""
        draft = model(
            "draft",
            the={"cat": 0.4, "dog": 0.3, "fish": 0.3},
            cat={"sat": 1.0},
            sat={"on": 1.0},
            on={"<eos>": 1.0},
        )
        generation = CoSDDecoder(draft, draft).generate("the", max_new_tokens=6)
        assert generation.stats.assistant_passes == 1
        assert generation.tokens[0].q == pytest.approx(0.4)

    def test_only_the_row_in_doubt_is_asked(self) -> None:
        draft = model("draft", the={"cat": 0.4, "dog": 0.3, "fish": 0.3}, on={"mat": 1.0}, mat={"<eos>": 1.0})
        doubted, sure = CoSDDecoder(draft, self.OTHER).generate(["the", "on"], max_new_tokens=6)
        assert (words(doubted), doubted.stats.assistant_passes) == (["dog", "<eos>"], 1)
        assert (words(sure), sure.stats.assistant_passes) == (["mat", "<eos>"], 0)
