"""Every wrong call is answered by one of our errors, in one line that names the value, and does no harm."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tokenizers import Tokenizer, decoders, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    XLNetConfig,
    XLNetLMHeadModel,
)

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    ContextOverflowError,
    CoSDDecoder,
    CoSDError,
    GenerationOptions,
    Grammar,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
    LoadingOptions,
    ModelLoadError,
    RuleVerifier,
    Settings,
    TrainingDataError,
    TreeVerifier,
    UnsupportedModelError,
    VerifierFileError,
    VocabularyMismatchError,
    observe,
)
from tests.models import byte_tokenizer, random_model, word_tokenizer


@dataclass
class World:
    """What the wrong calls are made on."""

    decoder: CoSDDecoder
    folder: Path

    @property
    def pair(self) -> tuple[LanguageModel, LanguageModel]:
        return self.decoder.draft, self.decoder.assistants[0]

    def file(self, content: bytes | str, name: str = "tree.json") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture(scope="module")
def expected(draft: LanguageModel, assistant: LanguageModel) -> str:
    return CoSDDecoder(draft, assistant).generate("ab", max_new_tokens=12).text


@pytest.fixture
def world(draft: LanguageModel, assistant: LanguageModel, tmp_path: Path) -> World:
    return World(CoSDDecoder(draft, assistant), tmp_path)


def assert_refused(call: Callable[[], Any], error: type[CoSDError], *needed: str) -> None:
    with pytest.raises(CoSDError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error, message
    assert len(message.splitlines()) == 1, message
    assert len(message) < 400, message
    for part in needed:
        assert part in message, f"{part!r} is not in: {message}"


class Unresolved(BaseModel):
    """Its field is of a type that is nowhere."""

    other: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


class WithCallable(BaseModel):
    """Its field cannot be JSON."""

    call: Callable[[], int]


def case(name: str, call: Callable[[World], Any], error: type[CoSDError], *needed: str) -> Any:
    return pytest.param(call, error, needed, id=name)


def option(name: str, value: Any, *needed: str, id: str = "") -> Any:  # noqa: A002
    def call(world: World) -> Any:
        return world.decoder.generate("ab", **{name: value})

    return case(f"{name}={id or repr(value)[:30]}", call, InvalidOptionError, name, *needed)


NAN, INF = float("nan"), float("inf")

OPTIONS = [
    option("max_new_tokens", 0, "0", "1"),
    option("max_new_tokens", -5, "-5", "1"),
    option("max_new_tokens", True, "True", "integer"),
    option("max_new_tokens", 8.0, "8.0", "integer"),
    option("max_new_tokens", "8", "'8'", "integer"),
    option("max_new_tokens", [8], "[8]", "integer"),
    option("min_new_tokens", -1, "-1", "0"),
    option("temperature", -0.1, "-0.1", "0"),
    option("temperature", NAN, "nan"),
    option("temperature", INF, "inf"),
    option("temperature", True, "True", "number"),
    option("temperature", "hot", "'hot'", "number"),
    option("temperature", "x" * 5000, "xxx", "number", id="a-long-text"),
    option("temperature", torch.eye(20), "tensor", "number", id="a-tensor"),
    option("top_p", 0.0, "0.0"),
    option("top_p", 1.5, "1.5", "1"),
    option("top_p", NAN, "nan"),
    option("top_k", -1, "-1", "0"),
    option("top_k", 2.5, "2.5", "integer"),
    option("min_p", 2, "2", "1"),
    option("repetition_penalty", 0, "0"),
    option("repetition_penalty", NAN, "nan"),
    option("seed", 1.5, "1.5", "integer"),
    option("seed", True, "True", "integer"),
    option("seed", "lucky", "'lucky'", "integer"),
    option("stop", "", "''", "1"),
    option("stop", ["a", ""], "''", "1"),
    option("stop", ["a", 3], "3", "string"),
    option("stop", 7, "7"),
    option("stop", b"x", "b'x'"),
    option("stop", ["x"] * 1001, "1000 strings", "1001"),
    option("stop", ["x" * 60_000, "y" * 60_000], "100000 characters", "120000"),
    option("eos_token_id", -1, "-1", "0"),
    option("eos_token_id", [1, "2"], "'2'", "integer"),
    option("eos_token_id", True, "True"),
    option("logits_processor", 5, "5", "LogitsProcessor"),
    option("logits_processor", ["ban"], "'ban'", "LogitsProcessor"),
    option("logits_processor", torch.tensor(1.0), "LogitsProcessor", id="a-scalar-tensor"),
    option("truncation", 1, "1", "boolean"),
    option("add_special_tokens", "no", "'no'", "boolean"),
    option("max_tokens", 5, "unknown", "'max_new_tokens'"),
    option("max_new_token", 5, "unknown", "'max_new_tokens'"),
    option("temprature", 0.5, "unknown", "'temperature'"),
    option("do_sample", True, "unknown", "temperature"),
    option("num_beams", 4, "unknown", "top_k"),
]


def prompt(name: str, value: Any, *needed: str, error: type[CoSDError] = InvalidPromptError) -> Any:
    return case(f"prompt-{name}", lambda world: world.decoder.generate(value), error, *needed)


PROMPTS = [
    prompt("empty", "", "''", "at least one"),
    prompt("no-list", [], "empty", "at least one"),
    prompt("empty-tuple", (), "empty", "at least one"),
    prompt("list-of-empty", [[]], "[]", "at least one"),
    prompt("list-of-empty-text", [""], "''", "at least one"),
    prompt("second-empty", ["a", ""], "''", "at least one"),
    prompt("none", None, "NoneType", "text"),
    prompt("bytes", b"ab", "bytes", "text"),
    prompt("number", 5, "int", "text"),
    prompt("dict", {"prompt": "ab"}, "dict", "text"),
    prompt("set", {1, 2}, "set", "text"),
    prompt("tensor", torch.tensor([[1, 2]]), "Tensor", "text"),
    prompt("array", np.array([1, 2]), "ndarray", "text"),
    prompt("mixed", ["a", 1], "1", "text"),
    prompt("ids-and-text", [1, "a"], "1", "text"),
    prompt("list-with-none", ["a", None], "None", "text"),
    prompt("floats", [1.0, 2.0], "1.0", "token ids"),
    prompt("bools", [True, False], "True", "token ids"),
    prompt("nested-twice", [[[1, 2]]], "[1, 2]", "token ids"),
    prompt("long-wrong-list", [[1.5] * 5000], "1.5", "token ids"),
    prompt("list-of-tensors", [torch.eye(30)], "tensor", "token ids"),
    prompt("negative-id", [1, -1], "-1", "257"),
    prompt("id-beyond-vocabulary", [1, 257], "257", "vocabulary"),
    prompt("huge-id", [10**30], str(10**30), "257"),
    prompt("half-a-surrogate-pair", "a\ud800b", "text"),
    prompt("too-long", "a" * 300, "300", "256", "truncation=True", error=ContextOverflowError),
    prompt("too-long-ids", [1] * 256, "256", "truncation=True", error=ContextOverflowError),
    case(
        "max_new_tokens-beyond-context",
        lambda world: world.decoder.generate("a", max_new_tokens=256),
        ContextOverflowError,
        "max_new_tokens=256",
        "256",
    ),
    case(
        "max_new_tokens-beyond-context-with-truncation",
        lambda world: world.decoder.generate("a", max_new_tokens=10**9, truncation=True),
        ContextOverflowError,
        "max_new_tokens=1000000000",
        "256",
    ),
    case("stream-checks-at-once", lambda world: world.decoder.stream(""), InvalidPromptError, "at least one"),
    case("steps-check-at-once", lambda world: world.decoder.steps("a", top_k=-1), InvalidOptionError, "-1"),
]


def part(name: str, value: Any, *needed: str) -> Any:
    return case(
        f"{name}={value!r}"[:40],
        lambda world: CoSDDecoder(*world.pair, **{name: value}),
        InvalidOptionError,
        name,
        *needed,
    )


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """The vocabulary of the byte tokenizer, but spaces are thrown away before it is used."""
    backend = Tokenizer.from_str(byte_tokenizer().backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def with_tokenizer(seed: int, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    return LanguageModel(random_model(seed=seed).model, tokenizer, name=f"other-{seed}")


def t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=257, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )


def xlnet() -> XLNetLMHeadModel:
    return XLNetLMHeadModel(
        XLNetConfig(vocab_size=257, d_model=16, n_layer=1, n_head=2, d_inner=16, initializer_range=0.2)
    )


def two(world: World) -> list[LanguageModel]:
    return [world.pair[1], random_model(seed=2)]


PARTS = [
    part("draft_length", 0, "0", "at least 1"),
    part("draft_length", -3, "-3", "at least 1"),
    part("draft_length", 1.5, "1.5", "whole number"),
    part("draft_length", True, "True", "whole number"),
    part("draft_length", "8", "'8'", "whole number"),
    part("draft_length", None, "None", "whole number"),
    part("batch_size", 0, "0", "at least 1"),
    part("batch_size", False, "False", "whole number"),
    part("batch_size", INF, "inf", "whole number"),
    part("calibration", (1.0,), "(1.0,)", "2 numbers"),
    part("calibration", (0.0, 1.0), "0.0", "between 0.01 and 100"),
    part("calibration", (1.0, NAN), "nan", "between"),
    part("calibration", "12", "'12'", "2 numbers"),
    part("verifier", "rules", "'rules'", "rule"),
    part("verifier", "tree", "tree", "TreeVerifier.load"),
    part("verifier", "", "''", "rule"),
    part("verifier", None, "None", "rule"),
    part("verifier", RuleVerifier, "RuleVerifier", "Verifier"),
    part("verifier", 0.5, "0.5", "rule"),
    part("verifier", ["vote"], "'vote'", "rule"),
    part("verifier", ["rule", "rule"], "2 verifiers for 1 assistants"),
    part("verifier", "x" * 5000, "xxx", "rule"),
    part("schedule", "fix", "'fix'", "fixed", "adaptive"),
    part("schedule", None, "None", "fixed", "adaptive"),
    part("schedule", {"name": "slow"}, "slow", "fixed", "adaptive"),
    case(
        "no-assistant",
        lambda world: CoSDDecoder(world.pair[0], []),
        InvalidOptionError,
        "assistant=[]",
        "one",
    ),
    case(
        "assistant-none",
        lambda world: CoSDDecoder(world.pair[0], None),
        InvalidOptionError,
        "assistant",
        "NoneType",
    ),
    case(
        "draft-as-name", lambda world: CoSDDecoder("gpt2", world.pair[1]), InvalidOptionError, "draft", "str"
    ),
    case(
        "bare-model",
        lambda world: CoSDDecoder(world.pair[0].model, world.pair[1]),
        InvalidOptionError,
        "Llama",
    ),
    case(
        "one-assistant-of-a-list-wrong",
        lambda world: CoSDDecoder(world.pair[0], [world.pair[1], 3]),
        InvalidOptionError,
        "assistant",
        "int",
    ),
    case(
        "speculative-with-two-assistants",
        lambda world: CoSDDecoder(world.pair[0], two(world), verifier="speculative"),
        InvalidOptionError,
        "speculative",
        "one assistant",
        "2",
    ),
    case("alpha=-1", lambda _: RuleVerifier(alpha=-1), InvalidOptionError, "alpha=-1", "at least 0"),
    case("alpha=nan", lambda _: RuleVerifier(alpha=NAN), InvalidOptionError, "alpha=nan", "finite"),
    case("alpha=inf", lambda _: RuleVerifier(alpha=INF), InvalidOptionError, "alpha=inf", "finite"),
    case("alpha=x", lambda _: RuleVerifier(alpha="x"), InvalidOptionError, "alpha='x'", "number"),
    case("alpha=True", lambda _: RuleVerifier(alpha=True), InvalidOptionError, "alpha=True", "number"),
    case("alpha=huge", lambda _: RuleVerifier(alpha=10**400), InvalidOptionError, "alpha=1000", "finite"),
    case("beta=-0.5", lambda _: RuleVerifier(beta=-0.5), InvalidOptionError, "beta=-0.5", "at least 0"),
    case("beta=None", lambda _: RuleVerifier(beta=None), InvalidOptionError, "beta=None", "number"),
    case("weight=1.5", lambda _: AverageVerifier(1.5), InvalidOptionError, "weight=1.5", "between 0 and 1"),
    case("weight=nan", lambda _: AverageVerifier(NAN), InvalidOptionError, "weight=nan", "between 0 and 1"),
    case("weight=half", lambda _: AverageVerifier("half"), InvalidOptionError, "weight='half'", "between"),
    case("cost=-1", lambda _: AdaptiveSchedule(-1), InvalidOptionError, "assistant_cost=-1", "at least 0"),
    case("cost=nan", lambda _: AdaptiveSchedule(NAN), InvalidOptionError, "assistant_cost=nan", "at least 0"),
    case("cost=x", lambda _: AdaptiveSchedule("x"), InvalidOptionError, "assistant_cost='x'", "at least 0"),
    case(
        "name=5",
        lambda world: LanguageModel(world.pair[0].model, byte_tokenizer(), name=5),
        InvalidOptionError,
        "name=5",
        "text",
    ),
    case(
        "home-of-nobody",
        lambda _: LanguageModel.from_pretrained("~nobody-is-called-so/model"),
        InvalidOptionError,
        "~nobody-is-called-so",
    ),
    case("long-name", lambda _: LanguageModel.from_pretrained("x" * 5000), InvalidOptionError, "xxx"),
    case(
        "long-tree-path",
        lambda _: Settings(draft_model="a", assistant_model="b", verifier="tree", tree_path="x" * 5000),
        VerifierFileError,
        "xxx",
    ),
    case("data-is-no-path", lambda world: observe(world.pair, "a\0b"), TrainingDataError, "no path"),
    case("grammar=forward", lambda _: Grammar.json_schema(Unresolved), InvalidOptionError, "Unresolved"),
    case("grammar=callable", lambda _: Grammar.json_schema(WithCallable), InvalidOptionError, "WithCallable"),
    case("grammar=plain-class", lambda _: Grammar.json_schema(World), InvalidOptionError, "World"),
    case("regex=half", lambda _: Grammar.regex("\ud800"), InvalidOptionError, "pattern", "surrogate"),
    case("lark=half", lambda _: Grammar.lark("\ud800"), InvalidOptionError, "rules", "surrogate"),
    case("tree-without-nodes", lambda _: TreeVerifier(()), InvalidOptionError, "none"),
    case("tree-of-text", lambda _: TreeVerifier("abc"), InvalidOptionError, "nodes"),
    case(
        "another-vocabulary",
        lambda world: CoSDDecoder(
            world.pair[0], with_tokenizer(3, word_tokenizer("<eos>", "a", "b")), verifier="average"
        ),
        VocabularyMismatchError,
        "random-0",
        "other-3",
        "257",
    ),
    case(
        "another-pre-tokenizer",
        lambda world: CoSDDecoder(
            world.pair[0], with_tokenizer(3, merging_tokenizer()), verifier="speculative"
        ),
        VocabularyMismatchError,
        "random-0",
        "other-3",
        "split",
    ),
]

MODELS = [
    case(
        "model-none", lambda _: LanguageModel(None, byte_tokenizer()), InvalidOptionError, "model", "NoneType"
    ),
    case(
        "model-as-name", lambda _: LanguageModel("gpt2", byte_tokenizer()), InvalidOptionError, "model", "str"
    ),
    case(
        "model-is-a-module",
        lambda _: LanguageModel(torch.nn.Linear(2, 2), byte_tokenizer()),
        InvalidOptionError,
        "PreTrainedModel",
        "Linear",
    ),
    case(
        "model-and-tokenizer-swapped",
        lambda world: LanguageModel(byte_tokenizer(), world.pair[0].model),
        InvalidOptionError,
        "PreTrainedModel",
    ),
    case(
        "tokenizer-none",
        lambda world: LanguageModel(world.pair[0].model, None),
        InvalidOptionError,
        "tokenizer",
    ),
    case(
        "tokenizer-of-the-tokenizers-library",
        lambda world: LanguageModel(world.pair[0].model, byte_tokenizer().backend_tokenizer),
        InvalidOptionError,
        "tokenizer",
        "Tokenizer",
    ),
    case(
        "encoder-decoder",
        lambda _: LanguageModel(t5(), byte_tokenizer(), name="t5"),
        UnsupportedModelError,
        "'t5'",
        "decoder-only",
    ),
    case(
        "without-head",
        lambda world: LanguageModel(LlamaModel(world.pair[0].model.config), byte_tokenizer()),
        UnsupportedModelError,
        "LlamaModel",
        "causal",
    ),
    case(
        "looks-ahead",
        lambda world: CoSDDecoder(world.pair[0], LanguageModel(xlnet(), byte_tokenizer())),
        UnsupportedModelError,
        "XLNet",
        "not causal",
    ),
]


def saved(world: World, *, tokenizer: bool = True) -> Path:
    folder = world.folder / "model"
    world.pair[0].model.save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder


def loading(
    name: str,
    spoil: Callable[[World], Any],
    *needed: str,
    error: type[CoSDError] = ModelLoadError,
    **options: Any,
) -> Any:
    def call(world: World) -> Any:
        return LanguageModel.from_pretrained(spoil(world), **options)

    return case(name, call, error, *needed)


def without_weights(world: World) -> str:
    folder = saved(world)
    (folder / "model.safetensors").unlink()
    return str(folder)


def with_pickled_weights(world: World) -> str:
    folder = Path(without_weights(world))
    torch.save(Canary(world.folder / "canary"), folder / "pytorch_model.bin")
    return str(folder)


def with_corrupt_weights(world: World) -> str:
    folder = saved(world)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    return str(folder)


def with_truncated_weights(world: World) -> str:
    folder = saved(world)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    return str(folder)


def with_broken_config(world: World) -> str:
    folder = saved(world)
    (folder / "config.json").write_text('{"model_type": "llama",')
    return str(folder)


def with_unknown_kind(world: World) -> str:
    folder = saved(world)
    (folder / "config.json").write_text('{"model_type": "nothing-like-it"}')
    return str(folder)


def of_an_encoder_decoder(world: World) -> str:
    t5().save_pretrained(world.folder / "t5")
    byte_tokenizer().save_pretrained(world.folder / "t5")
    return str(world.folder / "t5")


LOADING = [
    loading("missing-folder", lambda world: str(world.folder / "none"), "none", "no such folder"),
    loading("missing-relative-folder", lambda _: "./none", "'./none'", "no such folder"),
    loading("missing-hub-id", lambda _: "some-org/none", "'some-org/none'", local_files_only=True),
    loading("not-a-hub-id", lambda _: "two words!", "'two words!'"),
    loading("empty-name", lambda _: "", "''", "hub id", error=InvalidOptionError),
    loading("path-object-of-an-empty-folder", lambda world: world.folder, "cannot load"),
    loading("name-is-none", lambda _: None, "None", "hub id", error=InvalidOptionError),
    loading("empty-folder", lambda world: str(world.folder), "cannot load"),
    loading("no-tokenizer", lambda world: str(saved(world, tokenizer=False)), "tokenizer"),
    loading("no-weights", without_weights, "safetensors"),
    loading("pickled-weights", with_pickled_weights, "safetensors"),
    loading("corrupt-weights", with_corrupt_weights, "cannot load", "model"),
    loading("truncated-weights", with_truncated_weights, "cannot load", "model"),
    loading("broken-config", with_broken_config, "config.json"),
    loading("unknown-kind-of-model", with_unknown_kind, "nothing-like-it"),
    loading("encoder-decoder-folder", of_an_encoder_decoder, "cannot load"),
    loading("missing-subfolder", lambda world: str(saved(world)), "inner", subfolder="inner"),
    loading("missing-tokenizer", lambda world: str(saved(world)), "other", tokenizer="./other"),
    loading("device=cuda:7", lambda world: str(saved(world)), "'cuda:7'", device="cuda:7"),
    loading("device=gpu", lambda world: str(saved(world)), "'gpu'", device="gpu"),
    loading("device=", lambda world: str(saved(world)), "''", device=""),
    loading("device=meta", lambda world: str(saved(world)), "'meta'", device="meta"),
    loading("device=0", lambda world: str(saved(world)), "device=0", error=InvalidOptionError, device=0),
    loading(
        "device-and-device_map",
        lambda world: str(saved(world)),
        "'cpu'",
        "'auto'",
        "give one",
        error=InvalidOptionError,
        device="cpu",
        device_map="auto",
    ),
    *(
        loading(
            f"dtype={dtype}", lambda _: "x", repr(dtype), "float16", error=InvalidOptionError, dtype=dtype
        )
        for dtype in ("int8", "floaty", "nn", "", "half precision", torch.int8)
    ),
    loading("attention", lambda world: str(saved(world)), "fast", attn_implementation="fast"),
    case(
        "quantization",
        lambda world: LanguageModel.from_pretrained(str(saved(world)), quantization_config=4),
        InvalidOptionError,
        "quantization_config=4",
    ),
]


# Files that claim to be trees


class Canary:
    """Leaves a file behind if anybody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


GOOD: dict[str, Any] = {
    "format": "cosd-tree",
    "version": 1,
    "features": ["p", "q"],
    "nodes": [
        {"feature": "q", "threshold": 0.5, "left": 1, "right": 2},
        {"replace": False},
        {"replace": True},
    ],
}


def split(**values: Any) -> dict[str, Any]:
    """The good tree with another root."""
    root = {**GOOD["nodes"][0], **values}
    return {
        **GOOD,
        "nodes": [{name: value for name, value in root.items() if value is not ...}, *GOOD["nodes"][1:]],
    }


def tree(name: str, content: Any, *needed: str) -> Any:
    """A file with these bytes, this text, or these values as JSON."""

    def call(world: World) -> Any:
        made = content(world) if callable(content) else content
        return TreeVerifier.load(world.file(made if isinstance(made, (str, bytes)) else json.dumps(made)))

    return case(f"tree-{name}", call, VerifierFileError, "tree.json", *needed)


def joblib_bytes(world: World) -> bytes:
    joblib.dump(Canary(world.folder / "canary"), world.folder / "dump")
    return (world.folder / "dump").read_bytes()


REDUCE = {"__reduce__": ["os.system", ["touch canary"]], "py/reduce": [{"py/type": "os.system"}]}
CYCLE = [split()["nodes"][0], split(left=0)["nodes"][0], {"replace": True}]

TREES = [
    tree("pickle", lambda world: pickle.dumps(Canary(world.folder / "canary")), "JSON"),
    tree("pickle-protocol-0", lambda world: pickle.dumps(Canary(world.folder / "canary"), 0), "JSON"),
    tree("joblib", joblib_bytes, "JSON"),
    tree("yaml", "!!python/object/apply:os.system ['touch canary']\n", "JSON"),
    tree("reduce-entries", {**GOOD, **REDUCE}, "__reduce__"),
    tree("reduce-node", {**GOOD, "nodes": [REDUCE]}, "__reduce__"),
    tree("empty", b"", "JSON"),
    tree("not-utf-8", b'{"format": "\xff\xfe"}', "JSON"),
    tree("zeros", b"\0" * 100, "JSON"),
    tree("number", 5, "cosd-tree"),
    tree("list", [GOOD], "cosd-tree"),
    tree("null", None, "cosd-tree"),
    tree("other-format", {**GOOD, "format": "sklearn"}, "cosd-tree"),
    tree("wrong-version", {**GOOD, "version": 2}, "version 2", "1"),
    tree("version-true", {**GOOD, "version": True}, "version True"),
    tree("version-long", {**GOOD, "version": "9" * 5000}, "version"),
    tree("swapped-features", {**GOOD, "features": ["q", "p"]}, "['q', 'p']", "['p', 'q']"),
    tree("long-features", {**GOOD, "features": ["p"] * 5000}, "features"),
    tree("extra-entry", {**GOOD, "code": "import os"}, "code"),
    tree("many-extra-entries", {**GOOD, **{f"extra{at}": at for at in range(500)}}, "extra"),
    tree("no-nodes", {**GOOD, "nodes": []}, "none"),
    tree("missing-nodes", {name: value for name, value in GOOD.items() if name != "nodes"}, "nodes", "None"),
    tree("nodes-as-object", {**GOOD, "nodes": {"0": {"replace": True}}}, "nodes", "list"),
    tree("nodes-as-long-text", {**GOOD, "nodes": "x" * 5000}, "nodes", "list"),
    tree("about-as-text", {**GOOD, "about": "me"}, "about", "'me'"),
    tree("about-as-long-text", {**GOOD, "about": "x" * 5000}, "about"),
    tree("node-as-number", {**GOOD, "nodes": [3]}, "node 0", "3"),
    tree("node-long", {**GOOD, "nodes": ["x" * 5000]}, "node 0"),
    tree("replace-yes", {**GOOD, "nodes": [{"replace": "yes"}]}, "node 0", "'yes'", "true or false"),
    tree("replace-one", {**GOOD, "nodes": [{"replace": 1}]}, "node 0", "true or false"),
    tree("leaf-with-extras", {**GOOD, "nodes": [{"replace": True, "left": 1}]}, "node 0"),
    tree("split-with-extras", split(gini=0.5), "node 0", "gini"),
    tree("missing-key", split(left=...), "node 0", "left"),
    tree("child-is-root", split(left=0), "node 0", "0 and 2"),
    tree("child-negative", split(left=-1), "node 0", "-1"),
    tree("child-beyond", split(right=3), "node 0", "3"),
    tree("child-huge", split(right=10**30), "node 0", "1000"),
    tree("child-bool", split(left=True), "node 0", "True"),
    tree("child-float", split(left=1.0), "node 0", "1.0"),
    tree("child-twice", split(left=2), "child"),
    tree("child-cycle", {**GOOD, "nodes": CYCLE}, "node 1"),
    tree("orphan", {**GOOD, "nodes": [*GOOD["nodes"], {"replace": True}]}, "child"),
    tree("threshold-nan", split(threshold=NAN), "node 0", "nan"),
    tree("threshold-infinite", split(threshold=-INF), "node 0", "inf"),
    tree("threshold-overflow", json.dumps(split()).replace("0.5", "1e999"), "node 0", "inf"),
    tree("threshold-long-integer", json.dumps(split()).replace("0.5", "1" * 400), "node 0"),
    tree("threshold-longest-integer", json.dumps(split()).replace("0.5", "1" * 9999), "JSON"),
    tree("threshold-text", split(threshold="0.5"), "node 0", "'0.5'"),
    tree("threshold-bool", split(threshold=True), "node 0", "True"),
    tree("feature-other", split(feature="entropy"), "node 0", "entropy"),
    tree("feature-number", split(feature=0), "node 0", "0"),
    tree("nesting-bomb", "[" * 200_000, "JSON"),
    tree("nesting-bomb-inside", '{"about": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON"),
    tree("huge", b" " * (17 * 2**20), "16777216 bytes"),
    case("tree-missing", lambda w: TreeVerifier.load(w.folder / "none"), VerifierFileError, "no such file"),
    case("tree-folder", lambda world: TreeVerifier.load(world.folder), VerifierFileError, "no such file"),
    case("tree-path-none", lambda _: TreeVerifier.load(None), VerifierFileError, "None"),
    case("tree-path-nul", lambda _: TreeVerifier.load("a\0b"), VerifierFileError, r"'a\x00b'"),
    case(
        "tree-saved-nowhere",
        lambda world: TreeVerifier.load(world.file(json.dumps(GOOD))).save(world.folder / "none" / "x.json"),
        VerifierFileError,
        "x.json",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "needed"), [*OPTIONS, *PROMPTS, *PARTS, *MODELS, *LOADING, *TREES])
def test_a_wrong_call_is_refused_in_one_line_and_harms_nothing(world, expected, call, error, needed):
    assert_refused(lambda: call(world), error, *needed)
    assert not list(world.folder.rglob("canary")), "something in the file was executed"
    assert not Path("canary").exists(), "something in the file was executed"
    assert world.decoder.generate("ab", max_new_tokens=12).text == expected


def test_the_good_tree_of_these_cases_loads(world):
    assert TreeVerifier.load(world.file(json.dumps(GOOD))).replaces(0.1, 0.6)
    assert TreeVerifier.load(str(world.file(json.dumps({**GOOD, "about": {"any": ["thing"]}})))).about


async def test_async_calls_refuse_the_same(world):
    for call in (world.decoder.agenerate, world.decoder.astream, world.decoder.asteps):
        with pytest.raises(InvalidOptionError, match="top_k=-1"):  # noqa: PT012
            if call == world.decoder.agenerate:
                await call("ab", top_k=-1)
            else:
                [_ async for _ in call("ab", top_k=-1)]


def test_pickled_weights_are_read_only_when_asked_for(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError):
        LanguageModel.from_pretrained(str(tmp_path))
    assert LanguageModel.from_pretrained(str(tmp_path), use_safetensors=False).vocabulary_size == 257


# Junk

junk = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.complex_numbers()
        | st.text(st.characters(), max_size=8)
        | st.binary(max_size=4)
        | st.sampled_from([object(), int, len, ..., NotImplemented, range(3), torch.eye(2), torch.tensor(1)])
        | st.sampled_from([np.int64(1), np.float32(0.5), np.array(2), np.arange(2), Path("x"), "a" * 9999])
        | st.lists(junk, max_size=3)
        | st.tuples(junk, junk)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
        | st.dictionaries(st.text(max_size=3), junk, max_size=2)
        | st.just(10**400)
    )
)


def assert_only_our_errors(call: Callable[[], Any]) -> None:
    try:
        call()
        message = ""
    except CoSDError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert len(message) < 400


@settings(deadline=None, max_examples=400)
@given(name=st.sampled_from([*GenerationOptions.model_fields, "nonsense"]), value=junk)
def test_junk_options_raise_our_errors_only(name, value):
    assert_only_our_errors(lambda: GenerationOptions(**{name: value}))


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from([*LoadingOptions.model_fields, "nonsense"]), value=junk)
def test_junk_loading_options_raise_our_errors_only(name, value):
    assert_only_our_errors(lambda: LoadingOptions(**{name: value}))


@settings(deadline=None, max_examples=200)
@given(value=junk)
def test_junk_settings_of_the_parts_raise_our_errors_only(value):
    for make in (RuleVerifier, AverageVerifier, AdaptiveSchedule, TreeVerifier, TreeVerifier.from_classifier):
        assert_only_our_errors(lambda make=make: make(value))


@pytest.fixture(scope="module")
def decoder(draft: LanguageModel, assistant: LanguageModel) -> CoSDDecoder:
    return CoSDDecoder(draft, assistant)


@settings(deadline=None, max_examples=300)
@given(value=junk)
def test_junk_prompts_raise_our_errors_only(decoder, value):
    assert_only_our_errors(lambda: decoder.generate(value, max_new_tokens=1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(
    key=st.sampled_from([*GOOD, "about"]),
    inner=st.sampled_from([None, "feature", "threshold", "left", "right"]),
    value=json_values,
)
def test_junk_in_a_tree_file_raises_our_errors_only(tmp_path_factory, key, inner, value):
    path = tmp_path_factory.getbasetemp() / "junk.json"
    path.write_text(json.dumps({**GOOD, key: value} if inner is None else split(**{inner: value})))
    assert_only_our_errors(lambda: TreeVerifier.load(path))
