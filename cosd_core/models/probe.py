"""What kind of memory a model needs, found by running short passes with it and without.

Nothing that a model says of itself is believed where a pass of a few tokens can show it. What such a pass
cannot see, windows and switches at some length, is left to what the config says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import torch

from cosd_core.errors import GenerationError, UnsupportedModelError, quoted
from cosd_core.models.cache import DecodingCache, RowCache, attends_only
from cosd_core.models.forward import NoCache, pass_arguments
from cosd_core.models.state_cache import StateCache

if TYPE_CHECKING:
    from cosd_core.models.language_model import LanguageModel

_LONG, _SHORT, _BEYOND = 20, 12, 3
"""Ids of the two texts that are read, and how many follow the longer one to see if they change anything."""

_ACCEPTED = {torch.bfloat16: 0.15, torch.float16: 0.03, torch.int8: 0.05}
"""How far logits may be apart at least, by the coarsest type involved; see :func:`_apart`.

Layers of 8-bit integers may round what goes into them, too, where a last bit can become a step.
"""

_ACCEPTED_ON_CPU, _ACCEPTED_ELSEWHERE = 2e-4, 2e-3
"""The same for other types: float64 is float32 in parts of many models, and that is less on other devices."""

_NOISE = 4
"""So many times the difference that another length of the text makes is still taken for rounding."""

CACHE_ARGUMENTS = ("past_key_values", "cache_params", "state")
"""What forwards call their caches."""

_ALIKE = 5
"""Rounding makes no greater factor between the errors of two plans that are right."""

_NOT_ROUNDING, _NEVER_ROUNDING = 10, 0.45
"""No rounding changes logits by so many times what is accepted, or by so much."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is run.

    Attributes:
        strategy: What spares it reading everything again. ``"attention"``: keys and values by position, of
            which any suffix can be dropped. ``"states"``: states that move on with every token, of which
            snapshots are kept. ``"uncached"``: nothing does.
        together: Whether rows of different lengths share a pass.
        gaps: Whether masked gaps between cached positions do no harm.
        blocks: Whether several ids can be fed at once on top of a state.
        positions: Whether passes with a memory are told the positions of their ids, if they can be.
        cache_argument: What its forward calls its cache.
        own_cache: Whether the model makes it, of a kind of its own.
    """

    strategy: Literal["attention", "states", "uncached"]
    together: bool = False
    gaps: bool = False
    blocks: bool = True
    positions: bool = True
    cache_argument: str = "past_key_values"
    own_cache: bool = False

    def takes(self, model: "LanguageModel") -> frozenset[str]:
        """The optional arguments that the model's passes are given."""
        return model.forward_arguments - (set() if self.positions else {"position_ids"})

    def memory(self, model: "LanguageModel", rows: int = 1) -> DecodingCache:
        """An empty memory of so many rows; one, unless they share passes."""
        if self.strategy == "attention":
            return RowCache(rows, gaps=self.gaps)
        if self.strategy == "states":
            return StateCache(self.cache_argument, None if self.own_cache else model.model.config)
        return NoCache(model.forward_arguments)

    def __str__(self) -> str:
        """The strategy in words."""
        if self.strategy == "states":
            return "states, in blocks" if self.blocks else "states, token by token"
        return self.strategy


_UNCACHED = Plan("uncached", positions=False)  # what the model does by itself: the truth


@torch.inference_mode()
def probe(model: "LanguageModel") -> Plan:
    """Find the plan under which the cached passes of a model give what its uncached passes give.

    About ten passes over up to two dozen ids, twice as many where numbers have few digits. Hooks of the
    model's passes do not see them, and random states stay as they are.

    Raises:
        UnsupportedModelError: The model's passes fail, are not causal, or there is no such plan.
        GenerationError: There is not enough memory.
    """
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        return _Probe(model).plan()


class _Probe:
    """Two texts, and what the model says of them without a cache."""

    def __init__(self, model: "LanguageModel") -> None:
        self._model = model
        limits = [limit - _BEYOND for limit in (model.context_length, model.rope_switch) if limit]
        length = max(1, min([_LONG, *limits]))
        ids = _common_ids(model)
        self._texts = ids[:length], ids[_LONG:][: min(length, _SHORT)]
        self._wrong = ids[-3:]  # what is fed and dropped again
        try:
            self._truth = [self._uncached(text) for text in self._texts]
            longer = self._uncached([*self._texts[0], *self._wrong])
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(error) from error
        except Exception as error:
            raise UnsupportedModelError(
                f"{self._named} cannot read {length} tokens without a cache: {type(error).__name__}: "
                f"{quoted(error, 240)}"
            ) from error
        if longer.isnan().any():
            raise UnsupportedModelError(f"{self._named} gives NaN for logits")
        noise = _apart([(longer[:length], self._truth[0])])
        self._accepted = _accepted(model.model, longer)
        if noise > min(_NOT_ROUNDING * self._accepted, _NEVER_ROUNDING):
            raise UnsupportedModelError(
                f"{self._named} is not causal: what it says of a text changes by {noise:.0%} when the text "
                "goes on"
            )
        self._tolerance = max(_NOISE * noise, self._accepted)

    def plan(self) -> Plan:
        """The first plan that holds, the faster ones before the slower."""
        wrong: list[str] = []
        for alike in self._candidates():
            apart = self._tried(alike)
            best = min(apart.values(), default=inf)
            if best <= self._tolerance:
                enough = min(self._tolerance, max(self._accepted / 10, _ALIKE * best))
                return next(plan for plan, found in apart.items() if found <= enough)
            wrong += [f"{found:.1%} as {plan}" for plan, found in apart.items()]
        if wrong and self._attends_only:
            raise UnsupportedModelError(
                f"{self._named} has a cache that is wrong: its logits with it differ from those without by "
                f"{', '.join(wrong)}, where {self._tolerance:.1%} might be rounding"
            )
        return _UNCACHED

    def _tried(self, alike: Sequence[Plan]) -> dict[Plan, float]:
        """How far logits under plans are from the truth; those that fail are left out.

        Plans that do the same, the faster before the slower, are held against each other: an error that a
        type of few digits takes for rounding is none if the next plan does not make it.
        """
        apart: dict[Plan, float] = {}
        for plan in alike:
            try:
                apart[plan] = self._sharing_passes(plan) if plan.together else self._taking_turns(plan)
            except torch.OutOfMemoryError as error:
                raise self._out_of_memory(error) from error
            except Exception:  # this is not the cache that it takes
                continue
            if apart[plan] <= self._accepted / 10:
                break
        return apart

    @property
    def _named(self) -> str:
        return f"model {quoted(self._model.name)} ({type(self._model.model).__name__})"

    @property
    def _attends_only(self) -> bool:
        """Whether it says that it keeps keys and values alone."""
        return not self._model.model._is_stateful and attends_only(self._model.model.config)

    def _candidates(self) -> Iterator[list[Plan]]:
        """Groups of plans, each from fast to slow."""
        takes = self._model.forward_arguments
        if "past_key_values" in takes and self._attends_only:
            plan = Plan("attention")
            shared = replace(plan, together=True)
            with_gaps = [replace(shared, gaps=True)] if self._model.bears_gaps else []
            yield [*with_gaps, shared, plan] if self._model.shares_passes else [plan]
            if "position_ids" in takes:  # some do not begin to count at zero
                yield [replace(plan, positions=False)]
        for argument in CACHE_ARGUMENTS:
            if argument in takes:
                for own in (False, True):
                    plan = Plan("states", cache_argument=argument, own_cache=own)
                    yield [plan, replace(plan, blocks=False)]

    def _sharing_passes(self, plan: Plan) -> float:
        """How far logits are from the truth when both texts share passes and drop unequal ends."""
        memory = plan.memory(self._model, 2)
        pairs = []
        kept = [0, 0]
        for both, wrong in (((9, 4), 3), ((14, 7), 0), ((19, 11), 0), ((20, 12), 0)):
            ends = [min(end, len(text)) for end, text in zip(both, self._texts, strict=True)]
            fed = max(end - had for end, had in zip(ends, kept, strict=True))
            if not fed:
                continue
            memory.rewind([max(end - fed, 0) for end in ends])
            shown = [text[:end] + self._wrong[:wrong] for text, end in zip(self._texts, ends, strict=True)]
            logits = self._pass(plan, memory, shown, fed + wrong)[:, :fed]
            for end, truth, found in zip(ends, self._truth, logits, strict=True):
                places = min(fed, end)
                pairs.append((found[fed - places :], truth[end - places : end]))
            # The shorter text loses two places more, which it reads again behind a gap.
            kept = [ends[0], max(ends[1] - 2, 0)] if wrong else ends
            memory.rewind(kept)
        return _apart(pairs)

    def _taking_turns(self, plan: Plan) -> float:
        """How far logits are from the truth when the texts take turns, each with a memory of its own."""
        memories = [plan.memory(self._model) for _ in self._texts]
        pairs = []
        for which, upto, wrong in _TURNS if plan.blocks else _TURNS_ONE_BY_ONE:
            text, truth, memory = self._texts[which], self._truth[which], memories[which]
            begin, end = memory.lengths[0], min(upto, len(text))
            if fed := end + wrong - begin:
                logits = self._pass(plan, memory, [text[:end] + self._wrong[:wrong]], fed)
                pairs.append((logits[0, : end - begin], truth[begin:end]))
                memory.rewind([end])
        return _apart(pairs)

    def _uncached(self, ids: list[int]) -> torch.Tensor:
        """The logits after every id, ``[ids, vocabulary]``."""
        return self._pass(_UNCACHED, _UNCACHED.memory(self._model), [ids], len(ids))[0]

    def _pass(self, plan: Plan, memory: DecodingCache, rows: Sequence[list[int]], fed: int) -> torch.Tensor:
        """The logits after each of the last ``fed`` ids of every row, ``[rows, fed, vocabulary]``."""
        model = self._model
        arguments = pass_arguments(memory, rows, fed, device=model.device, takes=plan.takes(model))
        output = model.model.forward(**arguments)
        memory.passed(output)
        logits: torch.Tensor = output.logits
        return logits[..., : model.vocabulary_size]

    def _out_of_memory(self, error: Exception) -> GenerationError:
        return GenerationError(f"{self._named} finds no memory for a few tokens: {quoted(error)}")


_TURNS = ((0, 1, 0), (0, 4, 3), (1, 5, 0), (0, 10, 0), (0, 11, 0), (1, 12, 0), (0, 20, 0))
"""Which text is read, up to where, and how many wrong ids follow and are dropped again."""

_TURNS_ONE_BY_ONE = ((0, 1, 0), (0, 1, 1), (1, 5, 0), (0, 2, 0), (1, 6, 0), (0, 3, 0), (0, 4, 0))
"""The same for a model that reads a block from its beginning only."""


def _apart(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """How far logits are from true ones: their distance, relative to how much the true ones vary.

    Both are taken relative to the highest of their place, and cut where nothing can be probable any more.

    Args:
        pairs: Logits and true logits, each ``[places, vocabulary]``.
    """
    sides = (torch.cat(side).double() for side in zip(*pairs, strict=True))
    found, true = ((each - each.max(-1, keepdim=True).values).clamp(min=-50) for each in sides)
    varies = true.std(-1, correction=0).square().mean()
    apart = float(((found - true).square().mean() / varies.clamp(min=1e-12)).sqrt())
    return inf if isnan(apart) else apart


def _accepted(model: Any, logits: torch.Tensor) -> float:
    """How far logits may be apart whatever the noise."""
    types = {logits.dtype, *(parameter.dtype for parameter in model.parameters())}
    otherwise = _ACCEPTED_ON_CPU if logits.device.type == "cpu" else _ACCEPTED_ELSEWHERE
    return max(_ACCEPTED.get(each, otherwise) for each in types)


def _common_ids(model: "LanguageModel") -> list[int]:
    """So many ids as the texts and the wrong ends have; none has a meaning of its own, such as padding."""
    config = vars(model.model.config.get_text_config())
    named = (value for name, value in config.items() if name.endswith("_token_id") and isinstance(value, int))
    meant = {*named, *model.tokenizer.all_special_ids}
    vocabulary = range(model.vocabulary_size)
    common = [each for each in vocabulary if each not in meant] or list(vocabulary)
    return Random(0).choices(common, k=_LONG + _SHORT + _BEYOND)
