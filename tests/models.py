"""Small models built by the tests: random ones, and ones with a table of all probabilities."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cosd_core import LanguageModel

EOS = 256
VOCABULARY = 257


@cache
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and an end token: any text round-trips."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: at for at, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@cache
def word_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """One token per given word, split at spaces; the first word is the end token."""
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[0])


def random_model(
    *, seed: int, sharpness: float = 6.0, vocabulary: int = VOCABULARY, dtype: torch.dtype = torch.float64,
    **config: Any,
) -> LanguageModel:  # fmt: skip
    """A random two-layer Llama over bytes. Sharper models have higher confidences."""
    shape = {
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "initializer_range": 0.3, "eos_token_id": EOS, "bos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**shape, **config})).to(dtype)
    model.lm_head.weight.data *= sharpness
    return LanguageModel(model, byte_tokenizer(), name=f"random-{seed}")


class _Table(LlamaForCausalLM):
    """A model whose next-token probabilities depend on the last token alone, by a table."""

    def __init__(self, config: LlamaConfig, log_probabilities: torch.Tensor) -> None:
        super().__init__(config)
        self.register_buffer("table", log_probabilities, persistent=False)

    def forward(
        self, input_ids: Any, past_key_values: Any = None, logits_to_keep: int = 0, **kwargs: Any
    ) -> Any:
        """The parent updates the cache; its logits are replaced."""
        output = super().forward(
            input_ids=input_ids, past_key_values=past_key_values, logits_to_keep=logits_to_keep, **kwargs
        )
        output.logits = self.table[input_ids[:, -logits_to_keep:]]
        return output


def table_model(
    tokenizer: PreTrainedTokenizerFast, table: Mapping[str, Mapping[str, float]], *, name: str
) -> LanguageModel:
    """A model over the words of ``tokenizer``: ``table[last][next]`` is a probability; rows add up to 1."""
    words = tokenizer.get_vocab()
    probabilities = torch.zeros(len(words), len(words), dtype=torch.float64)
    probabilities[:, 0] = 1.0  # words without a row are followed by the end
    for last, row in table.items():
        assert abs(sum(row.values()) - 1) < 1e-9, f"the row of {last!r} adds up to {sum(row.values())}"
        probabilities[words[last]] = 0.0
        for following, probability in row.items():
            probabilities[words[last], words[following]] = probability
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, eos_token_id=0, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return LanguageModel(_Table(config, probabilities.log()), tokenizer, name=name)


def ascii_model(*, seed: int, sharpness: float = 6.0, **config: Any) -> LanguageModel:
    """A random model whose bytes are mostly ASCII, so that its text holds whole characters."""
    model = random_model(seed=seed, sharpness=sharpness, **config)
    model.model.lm_head.weight.data[128:] *= 0.1
    return model


@contextmanager
def on_pass(model: LanguageModel, act: Callable[[int, Any], Any]) -> Iterator[None]:
    """Call ``act(number, output)`` after every forward pass, the first being 1; None keeps the output."""
    passes = 0

    def hook(_module: Any, _arguments: Any, output: Any) -> Any:
        nonlocal passes
        passes += 1
        return act(passes, output)

    handle = model.model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def counted_passes(*models: LanguageModel) -> Iterator[list[str]]:
    """A list that grows by a model's name with each of its forward passes."""
    log: list[str] = []
    handles = [
        model.model.register_forward_hook(lambda *_, name=model.name: log.append(name)) for model in models
    ]
    try:
        yield log
    finally:
        for handle in handles:
            handle.remove()
