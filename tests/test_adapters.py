"""Adapters over one base share its weights, and every model generates what it would with its own copy."""

import gc
import json
import shutil
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from cosd_core import (
    CoSDDecoder,
    CoSDError,
    EvaluationFileError,
    InvalidOptionError,
    LanguageModel,
    MissingExtraError,
    ModelLoadError,
    UnsupportedModelError,
    utils,
)
from cosd_core.evaluation.methods import read_method
from cosd_core.frontend.model_names import model_names, settings_of_names
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import read_settings
from cosd_core.models import adapters
from cosd_core.models import language_model as registry
from tests.models import byte_tokenizer, random_model

peft = pytest.importorskip("peft")

SHAPE = {"hidden_size": 32, "intermediate_size": 32, "attention_bias": True}
IDS = torch.tensor([[72, 101, 108, 108, 111, 3, 4]])
ATTENTION = ["q_proj", "v_proj"]

KINDS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=ATTENTION),
    "rank-stabilised": lambda: peft.LoraConfig(
        r=4, target_modules=ATTENTION, use_rslora=True, lora_alpha=3, rank_pattern={"v_proj": 2}
    ),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=ATTENTION, use_dora=True),
    "every-layer": lambda: peft.LoraConfig(r=4, target_modules="all-linear"),
    "embeddings": lambda: peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"]),
    "whole-modules": lambda: peft.LoraConfig(
        r=4, target_modules=ATTENTION, modules_to_save=["embed_tokens", "lm_head"]
    ),
    "single-tokens": lambda: peft.LoraConfig(r=4, target_modules=ATTENTION, trainable_token_indices=[3, 4]),
    "biases": lambda: peft.LoraConfig(r=4, target_modules=ATTENTION, bias="all"),
    "ia3": lambda: peft.IA3Config(
        target_modules=[*ATTENTION, "down_proj"], feedforward_modules=["down_proj"]
    ),
    "loha": lambda: peft.LoHaConfig(target_modules=ATTENTION, r=2),
    "lokr": lambda: peft.LoKrConfig(target_modules=ATTENTION, r=2),
    "oft": lambda: peft.OFTConfig(target_modules=ATTENTION, oft_block_size=4),
    "boft": lambda: peft.BOFTConfig(target_modules=ATTENTION, boft_block_size=4),
    "hra": lambda: peft.HRAConfig(target_modules=ATTENTION, r=4),
    "layer-norm": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "fourier": lambda: peft.FourierFTConfig(target_modules=ATTENTION, n_frequency=20),
}


def train(folder: Path, base: str, config: Any, *, seed: int = 1, **shape: Any) -> str:
    """An adapter with random weights, saved as PEFT saves it."""
    model = random_model(seed=0, dtype=torch.float32, **{**SHAPE, **shape}).model
    model.name_or_path = base
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        wrapped = peft.get_peft_model(model, config)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) * 0.2
        wrapped.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base model with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "base"
    random_model(seed=0, dtype=torch.float32, **SHAPE).model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(base: str) -> tuple[str, str]:
    """Two LoRAs over it."""
    folder = Path(base).parent
    return (
        train(folder / "one", base, KINDS["lora"](), seed=1),
        train(folder / "two", base, KINDS["every-layer"](), seed=2),
    )


def alone(base: str, adapter: str | None = None) -> PreTrainedModel:
    """A separate copy of the base, with an adapter as PEFT loads it."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    if adapter is None:
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, adapter).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits


def bytes_of(*models: LanguageModel) -> int:
    """The bytes of all parameters; shared ones count once."""
    each = {
        parameter.data_ptr(): parameter.nbytes for model in models for parameter in model.model.parameters()
    }
    return sum(each.values())


# Logits and texts


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_every_kind_gives_the_logits_that_peft_gives_and_leaves_the_base_alone(
    tmp_path: Path, base: str, kind: str
) -> None:
    source = train(tmp_path / "adapter", base, KINDS[kind]())
    plain = LanguageModel.from_pretrained(base)
    before = logits(plain.model)
    model = LanguageModel.from_pretrained(base, adapter=source)
    assert torch.equal(logits(model.model), logits(alone(base, source)))
    assert not torch.allclose(logits(model.model), before, atol=0.1)
    assert torch.equal(logits(plain.model), before)
    assert torch.equal(before, logits(alone(base)))
    assert not model.model.training
    assert model.device.type == "cpu"


@pytest.mark.parametrize("verifier", ["rule", "assistant", "average"])
def test_a_pair_of_adapters_writes_what_two_separate_models_write(
    base: str, pair: tuple[str, str], verifier: str
) -> None:
    named = {"draft_adapter": pair[0], "assistant_adapter": pair[1]}
    shared = CoSDDecoder.from_pretrained(base, base, verifier=verifier, **named)
    separate = CoSDDecoder(
        *(LanguageModel(alone(base, each), byte_tokenizer()) for each in pair), verifier=verifier
    )
    prompts = ["hello", "a longer prompt"]
    for options in ({}, {"temperature": 1.0, "seed": 3}):
        results = [
            [each.token_ids for each in decoder.generate(prompts, max_new_tokens=30, **options)]
            for decoder in (shared, separate)
        ]
        assert results[0] == results[1]


def test_the_base_and_its_adapter_are_a_pair_too(base: str, pair: tuple[str, str]) -> None:
    shared = CoSDDecoder.from_pretrained(base, base, assistant_adapter=pair[0])
    separate = CoSDDecoder(
        LanguageModel(alone(base), byte_tokenizer()), LanguageModel(alone(base, pair[0]), byte_tokenizer())
    )
    texts = [decoder.generate("hello", max_new_tokens=30).token_ids for decoder in (shared, separate)]
    assert texts[0] == texts[1]


def test_an_adapter_alone_writes_what_its_own_generate_writes(base: str, pair: tuple[str, str]) -> None:
    decoder = CoSDDecoder.from_pretrained(base, base, draft_adapter=pair[0], verifier="draft")
    ids = byte_tokenizer().encode("hello")
    expected = alone(base, pair[0]).generate(
        input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=20, pad_token_id=0
    )
    assert decoder.generate("hello", max_new_tokens=20).token_ids == tuple(expected[0, len(ids) :].tolist())


def test_two_threads_over_one_base_write_the_right_texts(base: str, pair: tuple[str, str]) -> None:
    decoders = [
        CoSDDecoder.from_pretrained(
            base, base, draft_adapter=first, assistant_adapter=second, verifier="average"
        )
        for first, second in (pair, pair[::-1], (None, pair[0]), (pair[1], None))
    ]
    expected = [decoder.generate("hello", max_new_tokens=25).token_ids for decoder in decoders]
    assert len(set(expected)) > 2
    barrier = threading.Barrier(len(decoders))

    def work(decoder: CoSDDecoder) -> list[tuple[int, ...]]:
        barrier.wait()
        return [tuple(decoder.generate("hello", max_new_tokens=25).token_ids) for _ in range(3)]

    with ThreadPoolExecutor(len(decoders)) as pool:
        found = list(pool.map(work, decoders))
    assert found == [[tuple(ids)] * 3 for ids in expected]


def test_an_adapters_weights_take_the_type_of_the_base(base: str, pair: tuple[str, str]) -> None:
    model = LanguageModel.from_pretrained(base, adapter=pair[0], dtype="bfloat16")
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}


# One copy of the weights


def test_two_adapters_and_the_base_share_one_copy_of_the_weights(base: str, pair: tuple[str, str]) -> None:
    plain, one, two = (LanguageModel.from_pretrained(base, adapter=each) for each in (None, *pair))
    assert bytes_of(plain) < bytes_of(plain, one, two)
    own = sum(Path(each, "adapter_model.safetensors").stat().st_size for each in pair)
    assert bytes_of(plain, one, two) < bytes_of(plain) + own
    assert one.model is not two.model
    assert plain.lock is one.lock is two.lock


def test_the_base_is_read_once_and_every_adapter_once(
    base: str, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda source, options: log.append(source) or load(source, options))
    first = LanguageModel.from_pretrained(base, adapter=pair[0], dtype="float64")
    gc.collect()  # only the adapter refers to the base
    second = LanguageModel.from_pretrained(base, adapter=Path(pair[1]), dtype="float64")
    third = LanguageModel.from_pretrained(base, dtype="float64")
    assert len(log) == 1
    assert bytes_of(first, second, third) < 1.5 * bytes_of(third)
    assert LanguageModel.from_pretrained(base, adapter=pair[0] + "/", dtype="float64") is first
    assert LanguageModel.from_pretrained(base, adapter=pair[1], dtype="float64") is second
    assert len(log) == 1
    assert LanguageModel.from_pretrained(base, adapter=pair[0]).model.dtype == torch.float32
    assert len(log) == 2


def test_unused_models_are_freed(base: str, pair: tuple[str, str]) -> None:
    model = LanguageModel.from_pretrained(base, adapter=pair[0], attn_implementation="eager")
    alive = [weakref.ref(model.model), weakref.ref(model.model.model.layers[0].mlp.up_proj.weight)]
    del model
    gc.collect()
    assert [each() for each in alive] == [None, None]


def test_eight_threads_that_ask_for_adapters_load_the_base_once(
    base: str, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda source, options: log.append(source) or load(source, options))
    barrier = threading.Barrier(8)

    def work(at: int) -> LanguageModel:
        barrier.wait()
        return LanguageModel.from_pretrained(base, adapter=pair[at % 2], dtype="bfloat16")

    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(work, range(8)))
    assert len(log) == 1
    assert len({id(model) for model in models}) == 2


def test_traces_and_messages_name_the_adapter(base: str, pair: tuple[str, str]) -> None:
    model = LanguageModel.from_pretrained(base, adapter=pair[0])
    assert model.name == "base[one]", "the names of the folders"
    assert model.source == f"{base}[{pair[0]}]"


# Adapters that the caller has loaded


@pytest.fixture
def several(base: str, pair: tuple[str, str]) -> PreTrainedModel:
    """A model with both adapters, loaded by transformers' own methods."""
    model = alone(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_adapter(pair[0], adapter_name="one")
        model.load_adapter(pair[1], adapter_name="two")
    return model


@pytest.mark.parametrize("active", ["one", "two"])
def test_the_adapter_that_is_named_is_used_whatever_is_active(
    several: PreTrainedModel, base: str, pair: tuple[str, str], active: str
) -> None:
    several.set_adapter(active)
    named = {
        name: LanguageModel(several, byte_tokenizer(), adapter=name) for name in ("one", "two", "__base__")
    }
    expected = {"one": alone(base, pair[0]), "two": alone(base, pair[1]), "__base__": alone(base)}
    for name, model in named.items():
        assert torch.equal(logits(model.model), logits(expected[name]))
    assert several.active_adapters() == [active]
    assert torch.equal(logits(several), logits(expected[active]))
    assert bytes_of(*named.values()) == bytes_of(named["one"])


def test_without_a_name_the_model_is_taken_as_it_is_at_each_pass(
    several: PreTrainedModel, base: str, pair: tuple[str, str]
) -> None:
    model = LanguageModel(several, byte_tokenizer())
    assert model.model is several
    for name, source in (("one", pair[0]), ("two", pair[1])):
        several.set_adapter(name)
        assert torch.equal(logits(model.model), logits(alone(base, source)))


def test_a_name_switches_disabled_adapters_on_and_leaves_what_is_trained_as_it_was(
    several: PreTrainedModel, base: str, pair: tuple[str, str]
) -> None:
    several.set_adapter("two")
    for parameter in several.parameters():
        parameter.requires_grad_(True)
    several.disable_adapters()
    flags = [parameter.requires_grad for parameter in several.parameters()]
    model = LanguageModel(several, byte_tokenizer(), adapter="one")
    assert torch.equal(logits(model.model), logits(alone(base, pair[0])))
    assert torch.equal(logits(several), logits(alone(base)))
    assert [parameter.requires_grad for parameter in several.parameters()] == flags


def test_two_objects_over_one_model_hold_one_lock(several: PreTrainedModel) -> None:
    models = [LanguageModel(several, byte_tokenizer(), adapter=name) for name in (None, None, "one", "two")]
    assert len({id(model.lock) for model in models}) == 1


def test_a_peft_model_is_taken_with_the_adapter_that_is_active_or_named(
    base: str, pair: tuple[str, str]
) -> None:
    wrapped = alone(base, pair[0])
    wrapped.load_adapter(pair[1], adapter_name="two")
    assert torch.equal(logits(LanguageModel(wrapped, byte_tokenizer()).model), logits(alone(base, pair[0])))
    for name, source in (("default", pair[0]), ("two", pair[1]), ("__base__", None)):
        model = LanguageModel(wrapped, byte_tokenizer(), adapter=name)
        assert torch.equal(logits(model.model), logits(alone(base, source)))
        assert (model.name, model.source) == (f"base[{name}]", f"{base}[{name}]")


# Tokenizers


def test_the_tokenizer_of_the_adapter_is_used_where_it_brings_one(
    tmp_path: Path, base: str, pair: tuple[str, str]
) -> None:
    source = shutil.copytree(pair[0], tmp_path / "chatty")
    tokenizer = byte_tokenizer().__class__(
        tokenizer_object=byte_tokenizer().backend_tokenizer, eos_token="<eos>", chat_template="{{ messages }}"
    )
    tokenizer.eos_token = "!"
    tokenizer.save_pretrained(source)
    plain = LanguageModel.from_pretrained(base)
    model = LanguageModel.from_pretrained(base, adapter=source)
    assert model.tokenizer.chat_template == "{{ messages }}"
    assert not plain.tokenizer.chat_template
    assert model.eos_token_ids == plain.eos_token_ids | {tokenizer.eos_token_id}
    settings = {"draft_model": base, "assistant_model": base}
    assert Settings(**settings, draft_adapter=str(source)).known_chat_template()
    assert not Settings(**settings, draft_adapter=pair[0]).known_chat_template()
    assert not Settings(**settings).known_chat_template()
    named = LanguageModel.from_pretrained(base, adapter=source, tokenizer=base)
    assert not named.tokenizer.chat_template
    assert LanguageModel.from_pretrained(base, adapter=pair[0]).tokenizer is plain.tokenizer


# Refusals


@pytest.fixture
def broken(tmp_path: Path, pair: tuple[str, str]) -> Path:
    return Path(shutil.copytree(pair[0], tmp_path / "broken"))


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    "config",
    [
        lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        lambda: peft.VeraConfig(target_modules=["q_proj"], r=2),
        lambda: peft.LoraConfig(
            r=4, target_modules=ATTENTION, alora_invocation_tokens=[20, 30], task_type="CAUSAL_LM"
        ),
    ],
    ids=["prompt", "prefix", "vera", "activated"],
)
def test_an_adapter_that_needs_more_than_its_layers_is_refused_before_the_base_is_loaded(
    tmp_path: Path, base: str, config: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = train(tmp_path / "other", base, config())
    wrapped = alone(base, source)
    monkeypatch.setattr(registry, "load", lambda *_: pytest.fail("the base was loaded"))
    with pytest.raises(UnsupportedModelError, match=r"PROMPT|PREFIX|VERA|activated LoRA"):
        LanguageModel.from_pretrained(base, adapter=source, dtype="float16")
    with pytest.raises(UnsupportedModelError, match=r"PROMPT|PREFIX|VERA|activated LoRA"):
        LanguageModel(wrapped, byte_tokenizer())


def test_an_adapter_of_another_shape_is_refused_and_named(tmp_path: Path, base: str) -> None:
    wide = tmp_path / "base"
    model = random_model(seed=0, dtype=torch.float32, hidden_size=16, num_hidden_layers=3)
    model.model.save_pretrained(wide)
    source = train(tmp_path / "a", str(wide), KINDS["lora"](), hidden_size=16, num_hidden_layers=3)
    with pytest.raises(ModelLoadError, match=r"made for .* does not fit model .* size mismatch"):
        LanguageModel.from_pretrained(base, adapter=source)


def test_an_adapter_with_another_vocabulary_is_refused_and_the_way_out_named(
    tmp_path: Path, base: str
) -> None:
    source = train(tmp_path / "a", base, KINDS["whole-modules"](), vocabulary=300)
    with pytest.raises(ModelLoadError, match="another vocabulary"):
        LanguageModel.from_pretrained(base, adapter=source)


def test_an_adapter_over_more_or_fewer_layers_is_refused(tmp_path: Path, base: str) -> None:
    more = train(tmp_path / "more", base, KINDS["lora"](), num_hidden_layers=3)
    with pytest.raises(ModelLoadError, match="the model has no"):
        LanguageModel.from_pretrained(base, adapter=more)
    fewer = train(tmp_path / "fewer", base, KINDS["lora"](), num_hidden_layers=1)
    with pytest.raises(ModelLoadError, match="it lacks weights"):
        LanguageModel.from_pretrained(base, adapter=fewer)


def test_an_adapter_for_layers_of_other_names_is_refused(base: str, broken: Path) -> None:
    change(broken, target_modules=["c_attn"])
    with pytest.raises(ModelLoadError, match="does not fit"):
        LanguageModel.from_pretrained(base, adapter=broken)


def test_an_adapter_that_names_another_base_is_used_with_a_warning(base: str, broken: Path) -> None:
    change(broken, base_model_name_or_path="org/another")
    with pytest.warns(UserWarning, match=r"made for 'org/another'"):
        model = LanguageModel.from_pretrained(base, adapter=broken)
    assert torch.equal(logits(model.model), logits(alone(base, str(broken))))


def test_weights_that_a_file_lacks_are_missed(base: str, broken: Path) -> None:
    weights = load_file(broken / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(ModelLoadError, match="it lacks weights"):
        LanguageModel.from_pretrained(base, adapter=broken)


def test_pickled_weights_are_admitted_only_where_that_was_asked_for(base: str, broken: Path) -> None:
    weights = load_file(broken / "adapter_model.safetensors")
    torch.save(weights, broken / "adapter_model.bin")
    (broken / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"adapter_model.safetensors"):
        LanguageModel.from_pretrained(base, adapter=broken)
    model = LanguageModel.from_pretrained(base, adapter=broken, use_safetensors=False)
    assert torch.equal(logits(model.model), logits(alone(base, str(broken))))


@pytest.mark.parametrize("damage", ["no config", "no JSON", "no kind", "no weights", "torn weights"])
def test_a_damaged_adapter_is_an_error_of_ours(base: str, broken: Path, damage: str) -> None:
    config, weights = broken / "adapter_config.json", broken / "adapter_model.safetensors"
    match damage:
        case "no config":
            config.unlink()
        case "no JSON":
            config.write_text("{")
        case "no kind":
            config.write_text("{}")
        case "no weights":
            weights.unlink()
        case "torn weights":
            weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelLoadError, match="broken") as caught:
        LanguageModel.from_pretrained(base, adapter=broken)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("adapter", "kind", "words"),
    [
        ("./nowhere", ModelLoadError, "no such folder"),
        ("org/unknown", ModelLoadError, "adapter 'org/unknown'"),
        ("", InvalidOptionError, "adapter=''"),
        (3, InvalidOptionError, "adapter=3"),
    ],
)
def test_a_source_without_an_adapter_is_named(
    base: str, adapter: Any, kind: type[CoSDError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        LanguageModel.from_pretrained(base, adapter=adapter)


def test_an_unknown_name_is_refused_with_those_there_are(
    several: PreTrainedModel, draft: LanguageModel
) -> None:
    with pytest.raises(InvalidOptionError, match=r"adapter='three' .* it has 'one', 'two'"):
        LanguageModel(several, byte_tokenizer(), adapter="three")
    with pytest.raises(InvalidOptionError, match="it has none: name it to from_pretrained"):
        LanguageModel(draft.model, draft.tokenizer, adapter="one")


def test_merged_adapters_are_refused(base: str, pair: tuple[str, str]) -> None:
    wrapped = alone(base, pair[0])
    wrapped.merge_adapter()
    with pytest.raises(UnsupportedModelError, match="merged"):
        LanguageModel(wrapped, byte_tokenizer(), adapter="default")


def test_offloaded_weights_are_refused(tmp_path: Path, base: str, pair: tuple[str, str]) -> None:
    from accelerate import disk_offload

    model = alone(base)
    disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    found = adapters.Adapter.find(pair[0], registry.LoadingOptions())
    with pytest.raises(UnsupportedModelError, match="offloads"):
        found.over(model)


def test_accelerates_hooks_run_the_adapted_layers(base: str, pair: tuple[str, str]) -> None:
    from accelerate import dispatch_model

    model = dispatch_model(alone(base), {"": "cpu"}, force_hooks=True)
    found = adapters.Adapter.find(pair[0], registry.LoadingOptions()).over(model)
    assert torch.equal(logits(found), logits(alone(base, pair[0])))
    assert torch.equal(logits(model), logits(alone(base)))


@pytest.mark.parametrize("installed", [None, "0.19.1"])
def test_without_peft_or_with_an_old_one_the_extra_is_named(
    base: str, pair: tuple[str, str], installed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(_: str) -> str:
        if installed is None:
            raise PackageNotFoundError
        return installed

    monkeypatch.setattr(utils, "version", version)
    with pytest.raises(
        MissingExtraError, match=rf'there is {installed or "none"}: pip install "cosd\[adapters\]"'
    ):
        LanguageModel.from_pretrained(base, adapter=pair[0], dtype="float16")


# Settings


def test_settings_name_adapters_and_the_decoder_has_them(base: str, pair: tuple[str, str]) -> None:
    settings = Settings(
        draft_model=base,
        assistant_model=[base, base],
        draft_adapter=pair[0],
        assistant_adapter=[None, pair[1]],
    )
    decoder = settings.decoder()
    assert [model.name for model in decoder.models] == ["base[one]", "base", "base[two]"]
    assert decoder.draft is LanguageModel.from_pretrained(base, adapter=pair[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"assistant_model": ["b", "c"], "assistant_adapter": "x"}, "one per assistant: 2"),
        ({"assistant_adapter": ["x", "y"]}, "one per assistant: 1"),
        ({"assistant_model": ["b", "c"], "assistant_adapter": ["x", 3]}, "assistant_adapter"),
        ({"draft_adapter": 3}, "draft_adapter=3"),
        ({"draft_adaptor": "x"}, "did you mean 'draft_adapter'"),
    ],
)
def test_wrong_adapters_are_refused_by_the_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        Settings(**{"draft_model": "a", "assistant_model": "b", **settings})


def test_adapters_for_models_that_are_loaded_already_are_refused(
    draft: LanguageModel, assistant: LanguageModel, pair: tuple[str, str]
) -> None:
    with pytest.raises(InvalidOptionError, match=r"draft_adapter=.* loaded already"):
        CoSDDecoder.from_pretrained(draft, assistant, draft_adapter=pair[0])
    with pytest.raises(InvalidOptionError, match=r"assistant_adapter=.* loaded already"):
        CoSDDecoder.from_pretrained(draft, [assistant], assistant_adapter=[pair[0]])


def test_a_settings_file_may_hold_adapters(tmp_path: Path, base: str, pair: tuple[str, str]) -> None:
    for given in ({"draft_adapter": pair[0]}, {"assistant_adapter": [None, pair[1]]}):
        (tmp_path / "settings.json").write_text(json.dumps(given))
        assert read_settings(tmp_path / "settings.json") == given


def test_loading_prints_no_table_of_missing_weights(
    base: str, pair: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    LanguageModel.from_pretrained(base, adapter=pair[0], dtype="float16")
    out, err = capfd.readouterr()
    assert out == ""
    assert "MISSING" not in err
    assert "REPORT" not in err


# Front doors


def test_frameworks_take_adapters_and_tell_models_apart_by_them(base: str, pair: tuple[str, str]) -> None:
    langchain = pytest.importorskip("langchain_cosd")
    settings = {"draft_model": base, "assistant_model": base, "max_tokens": 12}
    plain = langchain.CoSDLLM(**settings)
    llm = langchain.CoSDLLM(**settings, draft_adapter=pair[0], assistant_adapter=[pair[1]])
    expected = CoSDDecoder.from_pretrained(base, base, draft_adapter=pair[0], assistant_adapter=pair[1])
    assert llm.invoke("hello") == expected.generate("hello", max_new_tokens=12).text
    assert llm.model_name == "base[one]+base[two]"
    assert plain.model_name == "base+base"
    assert llm._identifying_params != plain._identifying_params
    assert json.loads(json.dumps(llm._identifying_params))["assistant_adapter"] == [pair[1]]
    with pytest.raises(InvalidOptionError, match="draft_adapter is read when models are loaded"):
        llm.invoke("hello", draft_adapter=pair[1])
    llm.draft_adapter = None
    expected = CoSDDecoder.from_pretrained(base, base, assistant_adapter=pair[1])
    assert llm.invoke("hello") == expected.generate("hello", max_new_tokens=12).text


def test_the_adapters_of_a_dictionary_make_the_same_llm_again(base: str, pair: tuple[str, str]) -> None:
    llama_index = pytest.importorskip("llama_index_cosd")
    llm = llama_index.CoSDLLM(
        draft_model=base, assistant_model=[base], draft_adapter=pair[0], assistant_adapter=[None]
    )
    again = llama_index.CoSDLLM.from_dict(json.loads(json.dumps(llm.to_dict())))
    assert (again.draft_adapter, again.assistant_adapter) == (pair[0], [None])


@pytest.mark.parametrize("assistants", [1, 2])
def test_adapters_are_flags(
    base: str,
    pair: tuple[str, str],
    assistants: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cosd_core.cli import main

    flags = ["--draft", base, "--draft-adapter", pair[0], "--max-new-tokens", "12"]
    flags += ["--assistant", base, "--assistant-adapter", pair[1]]
    if assistants == 2:
        flags += ["--assistant", base, "--assistant-adapter", ""]
    monkeypatch.setattr("sys.argv", ["cosd", "generate", *flags, "hello"])
    with pytest.raises(SystemExit) as stop:
        main()
    expected = CoSDDecoder.from_pretrained(
        base, [base] * assistants, draft_adapter=pair[0], assistant_adapter=[pair[1], None][:assistants]
    )
    assert stop.value.code in (None, 0)
    assert capsys.readouterr().out == expected.generate("hello", max_new_tokens=12).text + "\n"


@pytest.mark.parametrize("adapters", [(None, None), ("one", None), (None, "two"), ("one", "two")])
def test_what_a_pair_is_called_names_it_again(adapters: tuple[str | None, str | None]) -> None:
    names = [adapter and f"org/{adapter}" for adapter in adapters]
    given = {"draft_model": "org/base", "assistant_model": "org/base"}
    given |= {
        f"{role}_adapter": name for role, name in zip(("draft", "assistant"), names, strict=True) if name
    }
    assert settings_of_names(*model_names(given)) == given


def test_a_settings_file_for_adapters_swaps_their_roles_and_is_for_no_others(tmp_path: Path) -> None:
    models = {"draft_model": "a", "assistant_model": "a", "draft_adapter": "x"}
    pair = model_names(models)
    for given, swapped in (
        (models, False),
        ({"draft_model": "a", "assistant_model": "a", "assistant_adapter": "x"}, True),
    ):
        (tmp_path / "tuned.json").write_text(json.dumps(given))
        assert read_method(tmp_path / "tuned.json", models, pair=pair).swapped == swapped
    (tmp_path / "tuned.json").write_text(json.dumps({**models, "draft_adapter": "y"}))
    with pytest.raises(EvaluationFileError, match="are for the models"):
        read_method(tmp_path / "tuned.json", models, pair=pair)
