"""The method written plainly, straight from its specification: the yardstick the other tests hold up.

Every token is decided by a full forward pass of every model over the whole prefix. There is no cache, no
block, no schedule and no batch here, and nothing of cosd_core but a verifier's settings, read as numbers,
and ``RandomNumbers.uniform``, which is what a seed means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import regex
import torch

from cosd_core import Generation, GGUFModel, LanguageModel
from cosd_core.models.gguf.library import llama_cpp
from cosd_core.sampling.sampler import RandomNumbers

Tree = Callable[[float, float], bool]


@dataclass(frozen=True)
class Place:
    """One position of the text: who wrote it (None: the draft), x and p, and y and q of every assistant."""

    id: int
    writer: int | None
    x: int
    p: float
    answers: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Written:
    """A finished text. ``whole`` is the decoding of all ids, ``text`` is cut before the stop sequence."""

    places: tuple[Place, ...]
    text: str
    whole: str
    finish_reason: str
    stop_sequence: str | None

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(place.id for place in self.places)

    @property
    def replaced(self) -> int:
        return sum(place.writer is not None for place in self.places)


def write(
    draft: LanguageModel | GGUFModel,
    assistants: Sequence[LanguageModel | GGUFModel],
    verifier: Any,
    prompt: str | Sequence[int],
    *,
    tree: Tree | None = None,
    truncation: bool = False,
    calibration: Sequence[float] = (),
    shown: Sequence[Sequence[int]] = (),
    **options: Any,
) -> Written:
    """What ``CoSDDecoder(draft, assistants, verifier=verifier).generate(prompt, **options)`` should give.

    ``shown`` holds every model's own prompt, the draft's first, where they differ.
    """
    how = _How(**options)
    models = (draft, *assistants)
    ids = tuple(draft.tokenizer(prompt)["input_ids"]) if isinstance(prompt, str) else tuple(prompt)
    if truncation:
        ids = ids[-(min(each.model.config.max_position_embeddings for each in models) - how.max_new_tokens) :]
    ends = how.ends(models)
    uniform = RandomNumbers(how.seed).uniform
    prompts = [tuple(each) for each in shown] or [ids] * len(models)
    temperatures = tuple(calibration) or (1,) * len(models)
    text: tuple[int, ...] = ()
    places: list[Place] = []
    while True:
        banned = how.banned(draft, text, ends)
        seen = [each + text for each in prompts]
        place = _decide(models, verifier, tree, seen, len(text), banned, how, uniform, temperatures)
        places.append(place)
        text += (place.id,)
        whole = draft.tokenizer.decode(list(text), skip_special_tokens=True)
        starts = [(whole.index(stop), stop) for stop in how.stop if stop in whole]
        stops = [(at + len(stop), at, stop) for at, stop in starts]
        if stops or place.id in ends or how.over(draft, text, ends):
            _, at, stop = min(stops, default=(0, len(whole), None))
            return Written(tuple(places), whole[:at], whole, "stop", stop)
        if len(places) == how.max_new_tokens:
            return Written(tuple(places), whole, whole, "length", None)


def assert_agrees(generation: Generation, written: Written, *, asked: bool, tolerance: float = 1e-9) -> None:
    """The decoder's text and its whole trace are the reference's; ``asked`` if no position was skipped."""
    assert generation.token_ids == written.ids
    assert generation.text == written.text
    assert generation.finish_reason == written.finish_reason
    assert generation.stop_sequence == written.stop_sequence
    assert "".join(token.text for token in generation.tokens) == written.whole
    for token, place in zip(generation.tokens, written.places, strict=True):
        assert token.source == ("draft" if place.writer is None else "assistant")
        assert token.draft_id == place.x
        assert token.p == pytest.approx(place.p, rel=tolerance, abs=tolerance)
        if token.q is None:
            assert not asked, "this schedule asks about every token"
            assert place.writer is None, "a token nobody was asked about was replaced"
            assert (token.assistant_id, token.assistant_index, token.other_text) == (None, None, None)
            continue
        assert token.assistant_index is not None
        if place.writer is not None:
            assert token.assistant_index == place.writer
        y, q = place.answers[token.assistant_index]
        assert token.assistant_id == y
        assert token.q == pytest.approx(q, rel=tolerance, abs=tolerance)
        assert (token.other_text is None) == (
            place.writer is None and all(y == place.x for y, _ in place.answers)
        )
    stats = generation.stats
    assert stats.drafted == stats.kept + stats.replaced + stats.discarded
    assert stats.kept + stats.replaced == len(written.places)
    assert stats.replaced == written.replaced
    assert stats.assistant_skipped == sum(token.q is None for token in generation.tokens)


# How one position is decided


@dataclass(frozen=True)
class _How:
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    eos_token_id: Any = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    pattern: str | None = None  # grammar=Grammar.regex(pattern), over single bytes of ASCII

    def banned(self, model: LanguageModel, text: Sequence[int], ends: set[int]) -> set[int]:
        banned = ends if len(text) < self.min_new_tokens else set()
        if self.pattern is not None:
            written = model.tokenizer.decode(list(text))
            vocabulary = range(len(model.tokenizer))
            follow = {
                each for each in vocabulary if self._may_follow(model, written, each) and each not in ends
            }
            if regex.fullmatch(self.pattern, written) and not (banned and follow):
                follow |= ends
            banned = set(vocabulary) - follow
        return banned

    def over(self, model: LanguageModel, text: Sequence[int], ends: set[int]) -> bool:
        if self.pattern is None:
            return False
        return set(range(len(model.tokenizer))) - self.banned(model, text, ends) <= ends

    def _may_follow(self, model: LanguageModel, written: str, token: int) -> bool:
        following = written + model.tokenizer.decode([token])
        return following.isascii() and regex.fullmatch(self.pattern, following, partial=True) is not None

    def ends(self, models: Sequence[LanguageModel]) -> set[int]:
        given = [self.eos_token_id]
        if self.eos_token_id is None:
            given = [_ends(each) for each in models]
        return {end for each in given for end in (each if isinstance(each, (list, tuple)) else [each])}


def _decide(
    models: Sequence[LanguageModel], verifier: Any, tree: Tree | None, seen: Sequence[tuple[int, ...]],
    place: int,
    banned: set[int],
    how: _How,
    uniform: Callable[[int, str], float],
    temperatures: Sequence[float],
) -> Place:  # fmt: skip
    purposes = ["draft", *(f"assistant {at}" for at in range(len(models) - 1))]
    masked = [_masked(_logits(each, ids), banned) for each, ids in zip(models, seen, strict=True)]
    shares = [
        _softmax(each / heat) for each, heat in zip(masked, temperatures, strict=True)
    ]  # for confidences
    scores = [_penalised(each, ids, how) for each, ids in zip(masked, seen, strict=True)]
    odds = [_odds(each, how) for each in scores]  # what tokens are picked from
    picks = [_draw(each, uniform(place, purpose), how) for each, purpose in zip(odds, purposes, strict=True)]
    x, p = picks[0], float(shares[0][picks[0]])
    answers = tuple((y, float(share[y])) for y, share in zip(picks[1:], shares[1:], strict=True))

    if verifier.name == "speculative":
        if uniform(place, "accept") * odds[0][x] < odds[1][x]:
            return Place(x, None, x, p, answers)
        y = _draw(np.maximum(odds[1] - odds[0], 0), uniform(place, "assistant 0"), how)
        return Place(y, 0, x, p, answers)
    if verifier.name == "average":
        chances = [_softmax(each) for each in scores]
        mixture = verifier.weight * chances[0] + (1 - verifier.weight) * sum(chances[1:]) / len(chances[1:])
        with np.errstate(divide="ignore"):
            token = _draw(_odds(np.log(mixture), how), uniform(place, "draft"), how)
        leader = None if token == x else int(np.argmax([chance[token] for chance in chances[1:]]))
        return Place(token, leader, x, p, answers)

    fires: dict[str, Tree] = {
        "rule": lambda p, q: p < verifier.alpha and q > verifier.beta * p,
        "draft": lambda _p, _q: False,
        "assistant": lambda _p, _q: True,
    }
    fire = tree if verifier.name == "tree" else fires[verifier.name]
    assert fire is not None, "give the tree as a function too"
    winner = None
    for at, (y, q) in enumerate(answers):
        if y != x and fire(p, q) and (winner is None or q > answers[winner][1]):
            winner = at
    return Place(x if winner is None else answers[winner][0], winner, x, p, answers)


@lru_cache(maxsize=60_000)
def _logits(model: LanguageModel | GGUFModel, ids: tuple[int, ...]) -> np.ndarray:
    if isinstance(model, GGUFModel):
        return _llama_cpp_logits(model, ids)
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()


def _ends(model: LanguageModel | GGUFModel) -> Any:
    if isinstance(model, GGUFModel):
        return sorted(model.eos_token_ids)
    return model.model.generation_config.eos_token_id


def _llama_cpp_logits(model: GGUFModel, ids: tuple[int, ...]) -> np.ndarray:
    """Those of llama-cpp-python's own class, which reads the whole text each time."""
    llama = _llama(model.path)
    llama.reset()
    llama.eval(ids)
    return np.array(llama._scores[-1], dtype=np.float64)


@lru_cache
def _llama(path: str) -> Any:
    from llama_cpp import Llama

    defaults = llama_cpp().llama_context_default_params()
    kinds = {"type_k": defaults.type_k, "type_v": defaults.type_v}
    return Llama(path, n_ctx=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False, **kinds)


def _masked(logits: np.ndarray, banned: set[int]) -> np.ndarray:
    masked = logits.copy()
    masked[sorted(banned)] = -np.inf
    return masked


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _penalised(logits: np.ndarray, ids: tuple[int, ...], how: _How) -> np.ndarray:
    """The logits after the processors that look at the text."""
    scores = logits.copy()
    for seen in set(ids):
        if how.repetition_penalty != 1:
            scores[seen] *= how.repetition_penalty if scores[seen] < 0 else 1 / how.repetition_penalty
    return scores


def _odds(scores: np.ndarray, how: _How) -> np.ndarray:
    """The weights that a token is picked from."""
    scores = scores.copy()
    if how.temperature == 0:
        return (np.arange(len(scores)) == scores.argmax()).astype(float)
    scores /= how.temperature
    if how.top_k:
        scores[scores < np.sort(scores)[-min(how.top_k, len(scores))]] = -np.inf
    if how.top_p < 1:
        best_first = np.argsort(-scores, kind="stable")
        mass_before = np.cumsum(_softmax(scores)[best_first]) - _softmax(scores)[best_first]
        scores[best_first[1:][mass_before[1:] >= how.top_p]] = -np.inf
    if how.min_p:
        shares = _softmax(scores)
        scores[shares < how.min_p * shares.max()] = -np.inf
    return _softmax(scores)


def _draw(weights: np.ndarray, uniform: float, how: _How) -> int:
    """The first token whose cumulated weight exceeds the uniform number's share of the total."""
    if how.temperature == 0:
        return int(weights.argmax())
    reached = 0.0
    for token, weight in enumerate(weights):
        reached += weight
        if reached > uniform * weights.sum():
            return token
    raise AssertionError("a uniform number is below 1")
