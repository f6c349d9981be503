"""Claim: where tokenizers differ, models small enough to check by eye decide as the specification says.

The draft spells, or writes pieces of words; its assistants write others. Every model looks at its own last
token alone. What follows it, and how probably, is written down in each test; anything else is followed by the
end. The specification is docs/different-tokenizers.md.
"""

from functools import cache
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cosd_core import CoSDDecoder, Generation, LanguageModel, PanelVerifier, RuleVerifier, Verifier
from tests.models import table_model

END = "<end>"
SCHEDULES = [("adaptive", 1), ("adaptive", 8), ("fixed", 1), ("fixed", 2), ("fixed", 3), ("fixed", 50)]
Row = dict[str, float]


@cache
def pieces(*texts: str, end: str = END, unknown: str = "[?]") -> PreTrainedTokenizerFast:
    """The end, one token for each of these texts, and what is unknown; of the texts the longest that fits."""
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys((end, *texts, unknown)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    longest_first = "|".join(sorted(map(_escaped, texts), key=lambda each: -len(each)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(longest_first), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in ".?=" else character for character in text)


@cache
def in_bytes() -> PreTrainedTokenizerFast:
    """One token for each byte, named as in byte-level vocabularies; the end of the text first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: at for at, symbol in enumerate((END, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


LETTERS = pieces(*"abcdefghijklmnopqrstuvwxyz3 =.?\n")


def spells(text: str, *, name: str = "draft", **sure: float) -> LanguageModel:
    """A draft that writes a text letter by letter, 0.9 each unless told otherwise, and ends. None twice."""
    assert len({*text, *"?qwvj"}) == len(text) + 5, (
        "it looks at the last letter alone, and these are the others"
    )
    rows: dict[str, Row] = {}
    for last, following in zip(text, [*text[1:], END], strict=True):
        p = sure.get("end" if following == END else following, 0.9)
        rows[last] = {following: p, **dict.fromkeys("?qwvj", (1 - p) / 5)}
    return table_model(LETTERS, rows, name=name)


def assistant(tokens: tuple[str, ...], rows: dict[str, Row], *, name: str = "assistant") -> LanguageModel:
    return table_model(pieces(*tokens), rows, name=name)


def write(
    draft: LanguageModel, *assistants: LanguageModel, verifier: str | Verifier = "rule", prompt: str = "=",
    **options: Any,
) -> Generation:  # fmt: skip
    """Decode under every schedule, see that all give one text by the same writers, and return the last."""
    options = {"max_new_tokens": 24} | options
    generations = [
        CoSDDecoder(draft, assistants, verifier=verifier, schedule=schedule, draft_length=length).generate(
            prompt, **options
        )
        for schedule, length in SCHEDULES
    ]
    assert len({(each.text, each.token_ids, each.finish_reason) for each in generations}) == 1
    assert len({tuple(token.source for token in each.tokens) for each in generations}) == 1
    return generations[-1]


def by_assistants(generation: Generation) -> str:
    return "".join(token.text for token in generation.tokens if token.source == "assistant")


class TestTheSame:
    """x and y are the same if one begins with the other."""

    WORDS = ("=", "cat", "c", "ca", "dog", "cats", " ", "sun", ".")

    @pytest.mark.parametrize("y", ["cat", "c", "ca"])
    def test_a_beginning_of_what_the_draft_wrote_is_no_claim(self, y: str) -> None:
        """c and ca are only the beginning of the token cat, so the assistant goes on until it has said it."""
        rest = {"c": {"c": {"ca": 0.1, "a": 0.9}, "a": {"t": 1.0}}, "ca": {"ca": {"t": 1.0}}, "cat": {}}[y]
        draft = spells("=cat", c=0.3)
        other = assistant((*self.WORDS, "a", "t"), {"=": {y: 0.9, "dog": 0.1}} | rest)
        generation = write(draft, other)
        assert generation.text == "cat"
        assert by_assistants(generation) == ""

    def test_another_word_is_a_claim(self) -> None:
        generation = write(spells("=cat", c=0.3), assistant(self.WORDS, {"=": {"dog": 0.9, "cat": 0.1}}))
        assert generation.text == "dog"
        assert by_assistants(generation) == "dog"

    @pytest.mark.parametrize(("y", "claimed"), [("cat s", ""), ("cat dog", ""), ("cats", "cats")])
    def test_beyond_the_word_the_next_letter_counts_and_no_other(self, y: str, claimed: str) -> None:
        """The draft wrote cat and a space, and more that was not judged yet."""
        tokens = ("=", "cat", "cats", "cat dog", " s", "un", " ")
        tokens = (*tokens, y) if y not in tokens else tokens
        other = assistant(tokens, {"=": {y: 0.9, " ": 0.1}, "cat": {" s": 1.0}, " s": {"un": 1.0}})
        generation = write(spells("=cat sun", c=0.3), other)
        assert by_assistants(generation) == claimed
        assert generation.text.startswith(claimed or "cat sun")


class TestGoingOn:
    """un is only the beginning of unhappy: what does the assistant mean?"""

    TOKENS = ("=", "unhapy", "un", "hapy", "do", "d", "o", "fit", "fi", "t", "h", "a", "py", ".", "dog")
    DRAFT = spells("=unhapy", u=0.4)

    def say(self, rows: dict[str, Row], **options: Any) -> Generation:
        return write(self.DRAFT, assistant(self.TOKENS, {"=": {"un": 0.9, "dog": 0.1}} | rows), **options)

    def test_the_draft_s_word(self) -> None:
        assert by_assistants(self.say({"un": {"hapy": 1.0}})) == ""

    def test_another_in_two_tokens(self) -> None:
        generation = self.say({"un": {"do": 0.8, "hapy": 0.2}, "do": {".": 0.9, "t": 0.1}, ".": {END: 1.0}})
        assert generation.text.startswith("undo")
        assert by_assistants(generation) == "undo"
        changed = generation.tokens[0]
        assert changed.q == pytest.approx(0.9 * 0.8), "the product of both"
        assert changed.p == pytest.approx(0.4 * 0.9**3), "of the letters that undo takes the place of"

    def test_another_in_three(self) -> None:
        generation = self.say({"un": {"fi": 0.9, "do": 0.1}, "fi": {"t": 0.9, "d": 0.1}, "t": {".": 1.0}})
        assert generation.text.startswith("unfit")
        assert generation.tokens[0].q == pytest.approx(0.9 * 0.9), "unfi differs: nothing more need be heard"

    def test_after_three_tokens_that_agree_it_is_taken_to_mean_the_draft_s(self) -> None:
        generation = self.say({"un": {"h": 1.0}, "h": {"a": 1.0}, "a": {"do": 1.0}})
        assert generation.text == "unhapy"

    def test_where_the_draft_is_sure_nothing_is_asked(self) -> None:
        sure = spells("=unhapy", u=0.99, n=0.99, h=0.99, a=0.99, p=0.99, y=0.99)
        other = assistant(self.TOKENS, {"=": {"un": 1.0}, "un": {"do": 1.0}})
        generation = CoSDDecoder(sure, other, draft_length=50).generate("=", max_new_tokens=6)
        assert (generation.text, generation.stats.assistant_passes) == ("unhapy", 0)


class TestFinishingAWord:
    TOKENS = ("=", "par", "is", "k", "ks", "s", " ", "e", "d", "3", ".", "bc")

    def test_the_assistant_writes_on_to_its_end(self) -> None:
        """At is, a token of its own, it means par k e d; the dot is no letter."""
        rows = {
            "=": {"par": 1.0},
            "par": {"k": 0.9, "is": 0.1},
            "k": {"e": 1.0},
            "e": {"d": 1.0},
            "d": {".": 1.0},
        }
        generation = write(spells("=paris", i=0.3), assistant(self.TOKENS, rows), max_new_tokens=6)
        assert by_assistants(generation) == "ked"
        assert generation.text.startswith("parked")
        assert [token.text for token in generation.tokens[3:6]] == ["k", "e", "d"]
        assert {token.q for token in generation.tokens[3:6]} == {generation.tokens[3].q}, (
            "each carries what decided"
        )
        assert generation.tokens[3].q == pytest.approx(0.9)
        assert generation.tokens[3].p == pytest.approx(0.3), "one letter: as far as k reaches"

    @pytest.mark.parametrize(
        ("after", "finished"), [("3", "k3"), (" ", "k"), (END, "k"), ("ks", "kks"), (".", "k")]
    )
    def test_a_letter_or_digit_goes_on_in_another(self, after: str, finished: str) -> None:
        rows = {
            "=": {"par": 1.0},
            "par": {"k": 0.9, "is": 0.1},
            "k": {after: 1.0},
            "3": {" ": 1.0},
            "ks": {" ": 1.0},
        }
        generation = write(spells("=paris", i=0.3), assistant(self.TOKENS, rows), max_new_tokens=6)
        assert by_assistants(generation)[: len(finished) + 1] == finished

    def test_one_that_never_ends_its_word_stops_after_sixteen_tokens(self) -> None:
        rows = {"=": {"par": 1.0}, "par": {"k": 0.9, "is": 0.1}, "k": {"e": 1.0}, "e": {"e": 1.0}}
        generation = write(spells("=paris", i=0.3), assistant(self.TOKENS, rows), max_new_tokens=19)
        assert generation.text == "park" + 15 * "e"

    @pytest.mark.parametrize(("least", "finished"), [(0, "k"), (3, "k"), (4, "ked")])
    def test_the_end_is_barred_by_the_tokens_before_the_place(self, least: int, finished: str) -> None:
        """Three letters stand before k, whatever else was drafted behind it."""
        rows = {
            "=": {"par": 1.0},
            "par": {"k": 0.9, "is": 0.1},
            "k": {END: 0.9, "e": 0.1},
            "e": {END: 0.9, "d": 0.1},
            "d": {".": 1.0},
            "is": {" ": 1.0},
            " ": {"e": 1.0},
        }
        generation = write(spells("=paris e", i=0.3), assistant(self.TOKENS, rows), min_new_tokens=least)
        assert by_assistants(generation) == finished

    def test_it_finishes_a_character_too(self) -> None:
        letters = pieces(*"acdefé =", "f=")
        draft = table_model(
            letters, {"=": {"c": 0.9, "d": 0.1}, "c": {"a": 0.9, "d": 0.1}, "a": {"f": 0.9, "d": 0.1},
                      "f": {"e": 0.4, "d": 0.3, "c": 0.3}, "e": {END: 1.0}}, name="draft",
        )  # fmt: skip
        rows = {
            "=": {"c": 1.0},
            "c": {"a": 1.0},
            "a": {"f": 1.0},
            "f": {"Ã": 0.9, "e": 0.1},
            "Ã": {"©": 0.8, "¼": 0.2},
        }
        generation = write(draft, table_model(in_bytes(), rows | {"©": {"Ġ": 1.0}}, name="bytes"))
        assert generation.text.startswith("café")
        assert [token.text for token in generation.tokens[:4]] == ["c", "a", "f", "é"]
        assert generation.tokens[3].q == pytest.approx(0.9), "its first byte was the claim"

    def test_half_a_character_is_no_replacement(self) -> None:
        draft = spells("=cafe", e=0.4)
        rows = {
            "=": {"c": 1.0},
            "c": {"a": 1.0},
            "a": {"f": 1.0},
            "f": {"Ã": 1.0},
            "Ã": {"e": 1.0},
            "e": {END: 1.0},
        }
        assert write(draft, table_model(in_bytes(), rows, name="bytes")).text == "cafe"

    def test_what_the_draft_s_tokens_cannot_say_is_none(self) -> None:
        rows = {
            "=": {"c": 1.0},
            "c": {"a": 1.0},
            "a": {"f": 1.0},
            "f": {"Ã": 1.0},
            "Ã": {"©": 1.0},
            "©": {END: 1.0},
        }
        generation = write(
            spells("=cafe", e=0.4), table_model(in_bytes(), rows | {"e": {END: 1.0}}, name="bytes")
        )
        assert generation.text == "cafe", "there is no é among the letters"
        assert by_assistants(generation) == ""


class TestTheEnd:
    TOKENS = ("=", "cat", "dog", " ", "s", " mat")

    def test_is_one_and_the_same_whatever_its_token_is_called(self) -> None:
        own = pieces(*self.TOKENS, end="</s>")
        other = table_model(own, {"=": {"cat": 1.0}, "cat": {"</s>": 0.9, "s": 0.1}}, name="other")
        generation = write(spells("=cat", end=0.3), other)
        assert (generation.text, generation.finish_reason) == ("cat", "stop")
        assert by_assistants(generation) == ""
        assert generation.token_ids[-1] == 0

    def test_is_replaced_where_the_draft_is_unsure_of_it(self) -> None:
        other = assistant(self.TOKENS, {"=": {"cat": 1.0}, "cat": {"s": 0.9, END: 0.1}, "s": {END: 1.0}})
        rows = {"=": {"c": 1.0}, "c": {"a": 1.0}, "a": {"t": 1.0}, "t": {END: 0.4, "s": 0.3, "=": 0.3}}
        draft = table_model(LETTERS, rows, name="draft")
        generation = write(draft, other)
        assert generation.text == "cats"
        assert by_assistants(generation) == "s"
        assert generation.tokens[3].p == pytest.approx(0.4), "the draft's confidence in the end"
        assert generation.tokens[3].other_text == END

    def test_replaces_what_the_draft_would_write(self) -> None:
        other = assistant(self.TOKENS, {"=": {"cat": 1.0}, "cat": {END: 0.9, " ": 0.1}})
        draft = table_model(
            LETTERS, {"=": {"c": 1.0}, "c": {"a": 1.0}, "a": {"t": 1.0}, "t": {" ": 0.4, "s": 0.3, "=": 0.3},
                      " ": {"m": 1.0}, "m": {END: 1.0}}, name="draft",
        )  # fmt: skip
        generation = write(draft, other)
        assert (generation.text, generation.finish_reason) == ("cat", "stop")
        assert generation.tokens[-1].source == "assistant"
        assert generation.token_ids[-1] == 0

    def test_can_be_the_first_thing_said(self) -> None:
        generation = write(spells("=cat", c=0.3), assistant(self.TOKENS, {"=": {END: 0.9, "cat": 0.1}}))
        assert (generation.text, generation.finish_reason, len(generation.tokens)) == ("", "stop", 1)

    def test_ends_a_word_that_is_being_finished(self) -> None:
        """The assistant means do and then the end, but only do is its claim; the draft ends by itself."""
        other = assistant(("=", "cat", "do"), {"=": {"do": 1.0}, "do": {END: 1.0}})
        draft = table_model(
            LETTERS, {"=": {"c": 0.4, "=": 0.3, "a": 0.3}, "c": {"a": 1.0}, "a": {"t": 1.0}}, name="draft"
        )
        generation = write(draft, other)
        assert (generation.text, generation.finish_reason) == ("do", "stop")
        assert generation.tokens[-1].source == "draft"


class TestConfidences:
    TOKENS = ("=", "cat", "dog", "do", "d", "doge", " ", "s", "c", "at")

    @pytest.mark.parametrize(("t", "text"), [(0.61, "dog"), (0.62, "cat")])
    def test_p_is_the_product_over_the_extent_of_y(self, t: float, text: str) -> None:
        """0.9 x 0.9 x 0.61 = 0.494 is below one half, 0.9 x 0.9 x 0.62 = 0.502 is not."""
        other = assistant(self.TOKENS, {"=": {"dog": 0.9, "cat": 0.1}})
        assert write(spells("=cat", t=t), other).text == text

    def test_a_shorter_y_is_held_against_fewer_letters(self) -> None:
        other = assistant(self.TOKENS, {"=": {"do": 0.9, "cat": 0.1}})
        assert write(spells("=cat", t=0.3), other).text == "cat", "c and a are sure: 0.81"

    def test_a_longer_y_up_to_the_letter_after_the_word(self) -> None:
        """doge is as long as cat and the end after it: 0.9 x 0.9 x 0.9 x 0.6 = 0.437; cat alone is 0.729."""
        other = assistant(self.TOKENS, {"=": {"doge": 0.9, "cat": 0.1}})
        generation = write(spells("=cat", end=0.6), other)
        assert generation.text.startswith("doge")
        assert generation.tokens[0].p == pytest.approx(0.9**3 * 0.6)

    def test_a_token_that_reaches_beyond_counts_whole(self) -> None:
        """The draft wrote cat in one token; the assistant claims d, one letter."""
        draft = table_model(
            pieces("=", "cat", "d", "o", "g"), {"=": {"cat": 0.4, "d": 0.3, "g": 0.3}}, name="draft"
        )
        other = assistant(("=", "c", "at", "d"), {"=": {"d": 0.9, "c": 0.1}})
        generation = write(draft, other)
        assert generation.text == "d"
        assert generation.tokens[0].p == pytest.approx(0.4)

    def test_token_stands_against_token(self) -> None:
        """Both have cats; its beginning cat is another token, and no question what it means."""
        draft = table_model(
            pieces("=", "cats", "cat", "s"), {"=": {"cats": 0.4, "cat": 0.3, "s": 0.3}}, name="draft"
        )
        other = assistant(("=", "s", "cats", "cat"), {"=": {"cat": 0.9, "s": 0.1}, "cat": {END: 1.0}})
        generation = write(draft, other)
        assert generation.text == "cat"
        assert (generation.tokens[0].p, generation.tokens[0].q) == (pytest.approx(0.4), pytest.approx(0.9))


class TestSeveralAssistants:
    ONE, OTHER = ("=", "cat", "dog", "cod"), ("=", "ca", "t", "rs", "r", "fox", "dog")
    DRAFT = spells("=cat", c=0.4, t=0.4)

    def test_the_leftmost_place_is_where_the_text_changes(self) -> None:
        surest = assistant(self.OTHER, {"=": {"ca": 1.0}, "ca": {"rs": 1.0}}, name="surest")
        leftmost = assistant(self.ONE, {"=": {"dog": 0.5, "cat": 0.3, "cod": 0.2}}, name="leftmost")
        for at, assistants in enumerate([(leftmost, surest), (surest, leftmost)]):
            generation = write(self.DRAFT, *assistants)
            assert generation.text == "dog"
            assert generation.tokens[0].assistant_index == at

    def test_at_one_place_the_most_confident_wins_and_the_first_of_equals(self) -> None:
        dog = assistant(self.ONE, {"=": {"dog": 0.6, "cat": 0.4}}, name="dog")
        fox = assistant(self.OTHER, {"=": {"fox": 0.6, "ca": 0.4}}, name="fox")
        surer = assistant(self.OTHER, {"=": {"fox": 0.7, "ca": 0.3}}, name="surer")
        assert write(self.DRAFT, dog, fox).text == "dog"
        assert write(self.DRAFT, fox, dog).text == "fox"
        assert write(self.DRAFT, dog, surer).text == "fox"
        assert write(self.DRAFT, dog, surer).tokens[0].assistant_index == 1

    def test_where_one_names_what_the_draft_cannot_say_the_next_is_heard(self) -> None:
        foreign = table_model(pieces("=", "ca", "t", "ñ"), {"=": {"ñ": 0.9, "ca": 0.1}}, name="foreign")
        dog = assistant(self.ONE, {"=": {"dog": 0.6, "cat": 0.4}}, name="dog")
        assert write(self.DRAFT, foreign, dog).text == "dog"

    def test_each_is_judged_by_its_own_verifier(self) -> None:
        dog = assistant(self.ONE, {"=": {"dog": 0.6, "cat": 0.4}}, name="dog")
        fox = assistant(self.OTHER, {"=": {"fox": 0.7, "ca": 0.3}}, name="fox")
        panel = PanelVerifier((RuleVerifier(), RuleVerifier(alpha=0.1)))
        assert write(self.DRAFT, dog, fox, verifier=panel).text == "dog"

    def test_one_with_the_draft_s_own_tokens_finishes_no_word(self) -> None:
        """Letter by letter, as where all models share them: the draft may write on after each."""
        letter = table_model(LETTERS, {"=": {"d": 0.9, "c": 0.1}, "d": {"o": 1.0}}, name="letter")
        word = assistant(self.ONE, {"=": {"cat": 1.0}, "cat": {END: 1.0}}, name="word")
        draft = table_model(
            LETTERS,
            {"=": {"c": 0.4, "=": 0.3, "d": 0.3}, "c": {"a": 1.0}, "a": {"t": 1.0}, "d": {"i": 1.0}},
            name="draft",
        )
        generation = write(draft, letter, word)
        assert generation.text == "di"
        assert [token.source for token in generation.tokens] == ["assistant", "draft", "draft"]
