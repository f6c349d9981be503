"""Reading a value from a device waits for all that it computes: decoding does so once per pass.

No device is needed. A subclass of tensors follows all that is computed from a model's inputs, and counts what
reads values of them on the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from cosd_core import CoSDDecoder, Grammar, LanguageModel, TreeVerifier, Verifier
from cosd_core.verifiers import Leaf, Split
from tests.models import random_model

_READS = ("tolist", "item", "numpy", "nonzero", "equal", "__bool__", "__int__", "__float__", "__index__")

_TREE = TreeVerifier((Split("p", 0.5, 1, 2), Leaf(True), Leaf(False)))


class _Counted(torch.Tensor):
    """A tensor as if it were on another device."""

    reads = 0
    in_forward = False  # what transformers reads is not ours

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        _Counted.reads += not _Counted.in_forward and getattr(func, "__name__", "") in _READS
        return super().__torch_function__(func, types, args, kwargs or {})


@contextmanager
def counted(models: tuple[LanguageModel, ...]) -> Iterator[list[int]]:
    """The number of passes so far; all that they return is of the counted class."""
    passes = [0]

    def enter(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        passes[0] += 1
        _Counted.in_forward = True
        return args, {
            name: value.as_subclass(_Counted) if isinstance(value, torch.Tensor) else value
            for name, value in kwargs.items()
        }

    def leave(*_: Any) -> None:
        _Counted.in_forward = False

    _Counted.reads = 0
    hooks = [each.model.register_forward_pre_hook(enter, with_kwargs=True) for each in models]
    hooks += [each.model.register_forward_hook(leave) for each in models]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("verifier", [_TREE, "rule", "assistant", "draft"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 5},
        {"grammar": Grammar.regex("[a-z ]{9,20}")},
    ],
    ids=["greedy", "sampled", "grammar"],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_one_read_per_pass(verifier: str | Verifier, options: dict[str, Any], rows: int) -> None:
    pair = random_model(seed=0), random_model(seed=1)
    decoder = CoSDDecoder(*pair, verifier=verifier, batch_size=rows)
    prompts = ["hello", "a rather longer prompt than the first", "x"][:rows]
    wanted = decoder.generate(prompts, max_new_tokens=24, **options)
    with counted(pair) as passes:
        written = decoder.generate(prompts, max_new_tokens=24, **options)
    assert [each.token_ids for each in written] == [each.token_ids for each in wanted]
    assert passes[0] > 1
    assert _Counted.reads == passes[0]
