"""Quantised models write what their own ``generate`` writes, and adapters sit on top of them."""

import gc
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, QuantoConfig, TorchAoConfig

from cosd_core import (
    CoSDDecoder,
    InvalidOptionError,
    LanguageModel,
    MissingExtraError,
    ModelLoadError,
    UnsupportedModelError,
)
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import read_settings
from cosd_core.models import language_model as registry
from tests.models import EOS, byte_tokenizer, random_model

SHAPE = {"hidden_size": 64, "intermediate_size": 64, "max_position_embeddings": 512}

TORCHAO = {
    "quant_method": "torchao",
    "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}},
}


def torchao_int8() -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(quant_type=Int8WeightOnlyConfig())


def nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )


CONFIGS: dict[str, tuple[str, Callable[[], Any]]] = {
    "torchao-int8": ("torchao", torchao_int8),
    "torchao-json": ("torchao", lambda: TORCHAO),
    "bitsandbytes-int8": ("bitsandbytes", lambda: BitsAndBytesConfig(load_in_8bit=True)),
    "bitsandbytes-nf4": ("bitsandbytes", nf4),
    "bitsandbytes-json": (
        "bitsandbytes",
        lambda: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"},
    ),
    "quanto-int8": ("optimum.quanto", lambda: QuantoConfig(weights="int8")),
    "quanto-json": ("optimum.quanto", lambda: {"quant_method": "quanto", "weights": "int8"}),
}


@pytest.fixture(params=CONFIGS)
def quantisation(request: pytest.FixtureRequest) -> Any:
    """A quantization config, as an object or as a dictionary."""
    package, make = CONFIGS[request.param]
    pytest.importorskip(package)
    return make()


@pytest.fixture(autouse=True)
def quantisers_warnings() -> Iterator[None]:
    """The packages warn about each other's deprecated calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save(folder: Path, *, seed: int) -> str:
    random_model(seed=seed, dtype=torch.float32, sharpness=1.0, **SHAPE).model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A pair in float32."""
    folder = tmp_path_factory.mktemp("models")
    return [save(folder / name, seed=seed) for seed, name in enumerate(("draft", "assistant"))]


def uncached(model: Any, prompt: str, answer: list[int]) -> torch.Tensor:
    """The probabilities at the positions of an answer's tokens, from one pass over everything."""
    ids = byte_tokenizer().encode(prompt)
    with torch.inference_mode():
        logits = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]
    return logits.float().softmax(-1)


def bytes_of(model: PreTrainedModel) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def test_the_cached_passes_of_a_quantised_model_are_its_uncached_passes(
    names: list[str], quantisation: Any
) -> None:
    decoder = CoSDDecoder.from_pretrained(*names, quantization_config=quantisation, schedule="fixed")
    assert type(decoder.draft.model.hf_quantizer).__name__.endswith("Quantizer")
    result = decoder.generate("hello", max_new_tokens=24, eos_token_id=[])
    # bitsandbytes rounds the inputs of its 8-bit layers to 8 bits, too: a last bit may become a step.
    near = 0.03 if getattr(quantisation, "load_in_8bit", False) else 1e-4
    drafts = uncached(decoder.draft.model, "hello", list(result.token_ids))
    for at, token in enumerate(result.tokens):
        assert token.p == pytest.approx(float(drafts[at, token.draft_id]), abs=near)
    theirs = uncached(decoder.assistants[0].model, "hello", list(result.token_ids))
    asked = [(at, token) for at, token in enumerate(result.tokens) if token.q is not None]
    assert asked
    for at, token in asked:
        assert token.q == pytest.approx(float(theirs[at, token.assistant_id]), abs=near)


def test_a_quantised_model_writes_what_its_own_generate_writes(names: list[str], quantisation: Any) -> None:
    ids = byte_tokenizer().encode("hello")
    for verifier, which in (("draft", 0), ("assistant", 1)):
        decoder = CoSDDecoder.from_pretrained(*names, quantization_config=quantisation, verifier=verifier)
        found = decoder.generate("hello", max_new_tokens=24)
        expected = decoder.models[which].model.generate(
            input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=24, pad_token_id=EOS
        )
        assert list(found.token_ids) == expected[0, len(ids) :].tolist()


def test_a_quantised_model_is_another_model_than_the_whole_one_and_loaded_once(
    names: list[str], quantisation: Any
) -> None:
    whole = LanguageModel.from_pretrained(names[0])
    model = LanguageModel.from_pretrained(names[0], quantization_config=quantisation)
    assert model is not whole
    assert LanguageModel.from_pretrained(names[0], quantization_config=quantisation) is model
    prompt = [*range(60, 70)]
    difference = uncached(whole.model, "hello", prompt) - uncached(model.model, "hello", prompt)
    assert 0 < difference.abs().max() < 0.5


def test_a_quantised_model_has_a_fingerprint_of_its_own_before_and_after_its_passes(
    names: list[str], quantisation: Any
) -> None:
    known = {LanguageModel.from_pretrained(name).fingerprint for name in names}
    for name in names:
        model = LanguageModel.from_pretrained(name, quantization_config=quantisation)
        known.add(model.fingerprint)
        CoSDDecoder(model, model).generate("hello", max_new_tokens=4)
        del vars(model)["fingerprint"]
        known.add(model.fingerprint)
    assert len(known) == 4


@pytest.mark.parametrize("kind", ["torchao-int8", "bitsandbytes-nf4", "bitsandbytes-int8"])
def test_a_model_that_was_saved_quantised_writes_the_same(
    tmp_path: Path, names: list[str], kind: str
) -> None:
    package, make = CONFIGS[kind]
    pytest.importorskip(package)
    before = LanguageModel.from_pretrained(names[0], quantization_config=make())
    before.model.save_pretrained(tmp_path)
    before.tokenizer.save_pretrained(tmp_path)
    model = LanguageModel.from_pretrained(tmp_path, device="cpu")
    assert model.model.hf_quantizer.pre_quantized
    texts = [
        CoSDDecoder(each, each, verifier="draft").generate("hello", max_new_tokens=24).token_ids
        for each in (before, model)
    ]
    assert texts[0] == texts[1]


# Adapters over quantised models


@pytest.fixture(scope="module")
def lora(names: list[str]) -> Callable[..., str]:
    """Makes a LoRA over the first model, with random weights."""
    peft = pytest.importorskip("peft")

    def make(folder: Path, *, seed: int, **more: Any) -> str:
        model = random_model(seed=0, dtype=torch.float32, sharpness=1.0, **SHAPE).model
        model.name_or_path = names[0]
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            wrapped = peft.get_peft_model(
                model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **more)
            )
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.data += torch.randn_like(parameter) * 0.2
            wrapped.save_pretrained(folder)
        return str(folder)

    return make


def copy_of(name: str, quantisation: Any) -> LanguageModel:
    """A second copy of the quantised model, with weights of its own."""
    known = dict(registry.loaded_models.models)
    registry.loaded_models.models.clear()
    try:
        return LanguageModel.from_pretrained(name, quantization_config=quantisation)
    finally:
        registry.loaded_models.models.clear()
        registry.loaded_models.models.update(known)


def alone(name: str, adapter: str, quantisation: Any) -> LanguageModel:
    """An adapter over a quantised copy of the model that no other adapter shares."""
    import peft

    base = copy_of(name, quantisation)
    return LanguageModel(peft.PeftModel.from_pretrained(base.model, adapter), base.tokenizer)


def test_adapters_over_one_quantised_base_write_what_they_write_over_their_own(
    tmp_path: Path, names: list[str], quantisation: Any, lora: Callable[..., str]
) -> None:
    one, two = lora(tmp_path / "one", seed=1), lora(tmp_path / "two", seed=2)
    shared = CoSDDecoder.from_pretrained(
        names[0], names[0], draft_adapter=one, assistant_adapter=two, quantization_config=quantisation
    )
    plain = LanguageModel.from_pretrained(names[0], quantization_config=quantisation)
    for model in shared.models:
        assert (
            model.model.model.layers[0].mlp.up_proj.weight is plain.model.model.layers[0].mlp.up_proj.weight
        )
    separate = CoSDDecoder(*(alone(names[0], each, quantisation) for each in (one, two)))
    texts = [each.generate("hello", max_new_tokens=24).token_ids for each in (shared, separate)]
    assert texts[0] == texts[1]
    ids = [72, 73]
    fresh = copy_of(names[0], quantisation)
    assert torch.equal(uncached(plain.model, "hello", ids), uncached(fresh.model, "hello", ids))


def test_a_dora_over_layers_that_it_would_break_is_refused_and_the_base_goes_on(
    tmp_path: Path, names: list[str], lora: Callable[..., str]
) -> None:
    pytest.importorskip("bitsandbytes")
    config = BitsAndBytesConfig(load_in_8bit=True)
    dora = lora(tmp_path / "dora", seed=1, use_dora=True)
    plain = LanguageModel.from_pretrained(names[0], quantization_config=config)
    before = uncached(plain.model, "hello", [72, 73])
    with pytest.raises(UnsupportedModelError, match="DoRA"):
        LanguageModel.from_pretrained(names[0], adapter=dora, quantization_config=config)
    assert torch.equal(uncached(plain.model, "hello", [72, 73]), before)


# Settings


def test_settings_files_hold_a_quantisation(tmp_path: Path, names: list[str]) -> None:
    pytest.importorskip("torchao")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"quantization_config": TORCHAO}))
    settings = Settings(draft_model=names[0], assistant_model=names[1], **read_settings(file))
    decoder = settings.decoder()
    assert decoder.draft.model.hf_quantizer.quantization_config.quant_method == "torchao"
    assert json.loads(file.read_text())["quantization_config"] == settings.quantization_config == TORCHAO


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "should say a quant_method: .*torchao"),
        ({"quant_method": "tochao"}, "unknown option 'tochao': did you mean 'torchao'"),
        ({"quant_method": "quanto", "weight": "int8"}, "unknown option 'weight': did you mean 'weights'"),
        ({"load_in_4bit": True, "bnb_4bit_quant": "nf4"}, "did you mean 'bnb_4bit_quant_"),
        ("int8", "quantization_config='int8' should be"),
        (8, "quantization_config=8 should be"),
    ],
)
def test_what_is_no_quantisation_is_refused_before_anything_is_loaded(
    names: list[str], config: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(InvalidOptionError, match=words):
        LanguageModel.from_pretrained(names[0], quantization_config=config)
    with pytest.raises(InvalidOptionError, match=words):
        Settings(draft_model=names[0], assistant_model=names[1], quantization_config=config)


def test_a_value_that_the_quantiser_does_not_take_is_an_error_of_ours(names: list[str]) -> None:
    pytest.importorskip("torchao")
    for kind in ("int8_weight_only", {"default": {"_type": "Nonsense", "_version": 2, "_data": {}}}):
        with pytest.raises(ModelLoadError, match="cannot load model"):
            LanguageModel.from_pretrained(
                names[0], quantization_config={"quant_method": "torchao", "quant_type": kind}
            )


def test_a_quantiser_that_is_not_installed_is_named(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.quantizers.quantizer_hqq.is_hqq_available", lambda *_: False)
    with pytest.raises(MissingExtraError, match="HQQ"):
        LanguageModel.from_pretrained(names[0], quantization_config={"quant_method": "hqq", "nbits": 4})


def test_a_quantised_model_is_smaller(names: list[str]) -> None:
    pytest.importorskip("bitsandbytes")
    whole = LanguageModel.from_pretrained(names[0])
    small = LanguageModel.from_pretrained(names[0], quantization_config=nf4())
    layers = [model.model.model.layers for model in (whole, small)]
    gc.collect()
    assert bytes_of(layers[1]) < 0.2 * bytes_of(layers[0])


def test_a_quantisation_is_written_as_json_on_the_command_line(
    names: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchao")
    from cosd_core.cli import main

    def cosd(config: str) -> tuple[int, str, str]:
        flags = ["--draft", names[0], "--assistant", names[1], "--max-new-tokens", "12"]
        monkeypatch.setattr(
            "sys.argv", ["cosd", "generate", *flags, "--quantization-config", config, "hello"]
        )
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    expected = CoSDDecoder.from_pretrained(*names, quantization_config=TORCHAO)
    code, out, _ = cosd(json.dumps(TORCHAO))
    assert (code, out) == (0, expected.generate("hello", max_new_tokens=12).text + "\n")
    for config, words in (("{", "should be JSON"), ('"int8"', "should be a transformers")):
        code, out, err = cosd(config)
        assert code != 0
        assert out == ""
        assert words in " ".join(err.split())


def test_dictionaries_of_frameworks_hold_a_quantisation(names: list[str]) -> None:
    llama_index = pytest.importorskip("llama_index_cosd")
    pytest.importorskip("torchao")
    for config in (TORCHAO, torchao_int8()):
        llm = llama_index.CoSDLLM(
            draft_model=names[0], assistant_model=names[1], quantization_config=config, max_tokens=12
        )
        again = llama_index.CoSDLLM.from_dict(json.loads(json.dumps(llm.to_dict())))
        assert again.complete("hello").text == llm.complete("hello").text
        assert again.quantization_config["quant_method"] == "torchao"
