"""Models load by name once, with the given options, and agree on end tokens, limits and vocabulary."""

import gc
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from cosd_core import (
    CoSDDecoder,
    CoSDError,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
    ModelLoadError,
    RuleVerifier,
)
from cosd_core.models import language_model as registry
from tests.models import EOS, VOCABULARY, byte_tokenizer, random_model
from tests.reference import assert_agrees, write


def save(folder: Path, *, seed: int = 0, **config: Any) -> str:
    """A random model with its tokenizer in a folder, as ``save_pretrained`` leaves them."""
    model = random_model(seed=seed, dtype=torch.float32, **config)
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return save(tmp_path / "model")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The sources that were loaded, not found in the registry."""
    log: list[str] = []
    load = registry.load

    def counted(source: str, options: Any) -> Any:
        log.append(source)
        return load(source, options)

    monkeypatch.setattr(registry, "load", counted)
    return log


def test_a_saved_model_writes_what_it_wrote_before(folder):
    before, loaded = random_model(seed=0, dtype=torch.float32), LanguageModel.from_pretrained(folder)
    partner = random_model(seed=1, dtype=torch.float32)
    texts = [CoSDDecoder(draft, partner).generate("ab", max_new_tokens=30).text for draft in (before, loaded)]
    assert texts[0] == texts[1]
    assert (loaded.name, loaded.source) == (Path(folder).name, folder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", torch.float32, torch.bfloat16])
def test_the_model_has_the_given_dtype(folder, dtype):
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert LanguageModel.from_pretrained(folder, dtype=dtype).model.dtype == expected


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
def test_dtype_auto_is_that_of_the_checkpoint(tmp_path, saved):
    model = random_model(seed=0, dtype=saved)
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert LanguageModel.from_pretrained(str(tmp_path)).model.dtype == saved


@pytest.mark.parametrize("device", ["cpu", "auto", torch.device("cpu")])
def test_the_model_is_on_the_given_device(folder, device):
    expected = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    assert LanguageModel.from_pretrained(folder, device=device).device.type == expected


def test_a_loaded_model_is_in_evaluation_mode(folder):
    assert not LanguageModel.from_pretrained(folder).model.training


# One name, one model


def test_the_same_folder_is_loaded_once_however_it_is_spelled(folder, loads, monkeypatch):
    monkeypatch.chdir(Path(folder).parent)
    link = Path(folder).parent / "link"
    link.symlink_to(folder)
    names = [folder, folder + "/", "model", "./model", "../" + Path.cwd().name + "/model", str(link)]
    models = [LanguageModel.from_pretrained(name) for name in names]
    assert all(model is models[0] for model in models)
    assert len(loads) == 1


def test_the_home_folder_may_be_written_as_a_tilde(folder, loads, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(folder).parent))
    assert LanguageModel.from_pretrained("~/model") is LanguageModel.from_pretrained(folder)


def test_eight_threads_load_a_model_once(folder, loads):
    barrier = threading.Barrier(8)

    def work(_: int) -> LanguageModel:
        barrier.wait()
        return LanguageModel.from_pretrained(folder)

    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(work, range(8)))
    assert all(model is models[0] for model in models)
    assert len(loads) == 1


def test_other_options_are_another_model(folder):
    plain = LanguageModel.from_pretrained(folder)
    assert LanguageModel.from_pretrained(folder, dtype="bfloat16") is not plain
    assert LanguageModel.from_pretrained(folder, attn_implementation="eager") is not plain
    assert LanguageModel.from_pretrained(folder, token="another") is not plain
    assert LanguageModel.from_pretrained(folder, dtype="auto", device="auto") is plain
    assert plain.model.dtype == torch.float32


def test_a_dtype_by_name_and_by_type_are_the_same_model(folder):
    assert LanguageModel.from_pretrained(folder, dtype="float32") is LanguageModel.from_pretrained(
        folder, dtype=torch.float32
    )


def test_a_fingerprint_depends_on_what_was_loaded_but_on_no_folder(tmp_path):
    other_end, other_template = deepcopy(byte_tokenizer()), deepcopy(byte_tokenizer())
    other_end.eos_token = "a"
    other_template.chat_template = "{{ messages }}"
    models = [
        random_model(seed=0),
        random_model(seed=0, dtype=torch.float32),
        random_model(seed=0, rope_theta=7.0),
        random_model(seed=1),
        LanguageModel(random_model(seed=0).model, other_end),
        LanguageModel(random_model(seed=0).model, other_template),
    ]
    assert len({model.fingerprint for model in models}) == len(models)
    assert random_model(seed=0).fingerprint == models[0].fingerprint
    for folder in (tmp_path / "a", tmp_path / "b"):
        models[1].model.save_pretrained(folder)
        models[1].tokenizer.save_pretrained(folder)
    one, other = (LanguageModel.from_pretrained(tmp_path / name).fingerprint for name in "ab")
    assert one == other


def test_the_registry_keeps_no_model_alive(folder, loads):
    model = LanguageModel.from_pretrained(folder)
    alive = weakref.ref(model.model)
    del model
    gc.collect()
    assert alive() is None
    LanguageModel.from_pretrained(folder)
    assert len(loads) == 2


def test_a_failed_load_can_be_repeated(folder, tmp_path):
    hidden = tmp_path / "hidden"
    os.rename(Path(folder) / "config.json", hidden)
    with pytest.raises(CoSDError):
        LanguageModel.from_pretrained(folder)
    os.rename(hidden, Path(folder) / "config.json")
    assert LanguageModel.from_pretrained(folder).source == folder


# Decoders from names


def test_names_and_loaded_models_mix(folder, tmp_path):
    other = save(tmp_path / "other", seed=1)
    third = random_model(seed=2, dtype=torch.float32)
    decoder = CoSDDecoder.from_pretrained(folder, [other, third, folder], dtype="float32", draft_length=3)
    assert decoder.draft is decoder.assistants[2]
    assert decoder.assistants[1] is third
    assert decoder.draft_length == 3
    named = CoSDDecoder.from_pretrained(third, other, verifier="draft", schedule="fixed", batch_size=2)
    assert named.draft is third
    assert named.assistants[0].source == other
    assert (named.verifier.name, named.schedule.name, named.batch_size) == ("draft", "fixed", 2)
    assert named.generate("a", max_new_tokens=3).prompt == "a"


def test_decoders_that_name_the_same_models_share_them(folder, loads):
    first, second = (CoSDDecoder.from_pretrained(folder, folder) for _ in range(2))
    assert first.draft is first.assistants[0] is second.draft
    assert len(loads) == 1


def test_a_tokenizer_may_lie_elsewhere(folder, tmp_path):
    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    for file in Path(folder).glob("tokenizer*"):
        file.unlink()
    model = LanguageModel.from_pretrained(folder, tokenizer=str(tmp_path / "tokenizer"))
    assert model.encode("ab") == byte_tokenizer().encode("ab")


def test_a_model_may_lie_in_a_subfolder(tmp_path):
    save(tmp_path / "inner")
    model = LanguageModel.from_pretrained(str(tmp_path), subfolder="inner")
    assert model.encode("ab") == byte_tokenizer().encode("ab")


def test_the_subfolder_of_a_model_is_not_looked_for_in_another_tokenizer(tmp_path):
    save(tmp_path / "inner")
    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    model = LanguageModel.from_pretrained(
        str(tmp_path), subfolder="inner", tokenizer=str(tmp_path / "tokenizer")
    )
    assert model.encode("ab") == byte_tokenizer().encode("ab")


# End tokens


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        pytest.param(None, {EOS}, id="tokenizer"),
        pytest.param(5, {5}, id="one"),
        pytest.param([5, 9, EOS], {5, 9, EOS}, id="several"),
        pytest.param(0, {0}, id="zero"),
    ],
)
def test_the_end_tokens_are_the_generation_configs_or_else_the_tokenizers(configured, expected):
    model = random_model(seed=0)
    model.model.generation_config = GenerationConfig(eos_token_id=configured)
    assert model.eos_token_ids == expected


def test_end_tokens_survive_saving(tmp_path):
    model = random_model(seed=0, dtype=torch.float32)
    model.model.generation_config = GenerationConfig(eos_token_id=[7, EOS])
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert LanguageModel.from_pretrained(str(tmp_path)).eos_token_ids == {7, EOS}


def test_an_end_token_of_either_model_ends_the_text():
    plain, other = random_model(seed=0), random_model(seed=1)
    free = CoSDDecoder(plain, other).generate("ab", max_new_tokens=30, eos_token_id=[])
    end = free.token_ids[10]
    first = free.token_ids.index(end)
    other.model.generation_config = GenerationConfig(eos_token_id=[end, 999])
    for pair in ((plain, other), (other, plain)):
        result = CoSDDecoder(*pair, verifier="draft").generate("ab", max_new_tokens=60)
        assert end not in result.token_ids[:-1]
    result = CoSDDecoder(plain, LanguageModel(other.model, other.tokenizer)).generate("ab", max_new_tokens=30)
    assert result.token_ids == free.token_ids[: first + 1]
    assert result.finish_reason == "stop"


def test_ids_that_the_caller_names_replace_the_models_own():
    decoder = CoSDDecoder(random_model(seed=0), random_model(seed=1))
    free = decoder.generate("ab", max_new_tokens=30, eos_token_id=[])
    end = free.token_ids[5]
    result = decoder.generate("ab", max_new_tokens=30, eos_token_id=end)
    assert result.token_ids == free.token_ids[: free.token_ids.index(end) + 1]


# Limits and vocabulary


def test_the_context_window_is_the_models():
    assert random_model(seed=0, max_position_embeddings=77).context_length == 77


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(300, 280), (280, 300), (VOCABULARY, 300), (300, VOCABULARY)])
def test_padding_of_a_vocabulary_is_never_written(sizes, temperature):
    pair = [random_model(seed=seed, vocabulary=size) for seed, size in enumerate(sizes)]
    for model in pair:
        model.model.lm_head.weight.data[VOCABULARY:] *= 50  # padding ids that would be the most probable
    decoder = CoSDDecoder(*pair)
    assert all(model.vocabulary_size == VOCABULARY for model in pair)
    result = decoder.generate("ab", max_new_tokens=60, temperature=temperature, seed=1, eos_token_id=[])
    seen = {each for token in result.tokens for each in (token.id, token.draft_id, token.assistant_id or 0)}
    assert max(seen) < VOCABULARY


def test_padding_does_not_change_a_confidence():
    plain, padded = random_model(seed=0), random_model(seed=0, vocabulary=300)
    padded.model.load_state_dict(
        {
            name: torch.cat([weights, torch.full((43, 16), 9.0, dtype=weights.dtype)])
            if weights.shape == (VOCABULARY, 16)
            else weights
            for name, weights in plain.model.state_dict().items()
        }
    )
    partner = random_model(seed=1)
    results = [CoSDDecoder(draft, partner).generate("ab", max_new_tokens=20) for draft in (plain, padded)]
    assert [token.p for token in results[0].tokens] == pytest.approx([token.p for token in results[1].tokens])


@pytest.mark.parametrize("role", ["draft", "assistant"])
def test_a_text_with_a_token_that_a_model_does_not_score_is_refused(role):
    tokenizer = byte_tokenizer().__class__(tokenizer_object=byte_tokenizer().backend_tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<eos>"})
    tokenizer.add_tokens(["<new>"])
    small, large = random_model(seed=0), random_model(seed=1, vocabulary=300)
    pair = [LanguageModel(model.model, tokenizer, name=name) for model, name in ((small, "s"), (large, "l"))]
    decoder = CoSDDecoder(*(pair if role == "draft" else reversed(pair)))
    with pytest.raises(InvalidPromptError, match="257"):
        decoder.generate("a <new> thing", max_new_tokens=3)
    assert decoder.generate("a thing", max_new_tokens=3).prompt_tokens == 7


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"torch_dtype": "float16"}, "did you mean 'dtype'"),
        ({"devices": "cpu"}, "did you mean 'device'"),
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"low_cpu_mem_usage": True}, "low_cpu_mem_usage"),
        ({"temperature": 0.5}, "temperature"),
        ({"trust_remote_code": "yes"}, "trust_remote_code='yes'"),
        ({"local_files_only": 1}, "local_files_only=1"),
        ({"revision": 3}, "revision=3"),
        ({"device": "cpu", "device_map": "auto"}, "contradict"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_do_not_exist_are_refused_before_anything_is_loaded(folder, loads, options, named):
    for load in (
        LanguageModel.from_pretrained,
        lambda name, **given: CoSDDecoder.from_pretrained(name, name, **given),
    ):
        with pytest.raises(InvalidOptionError, match=named) as caught:
            load(folder, **options)
        assert len(str(caught.value).splitlines()) == 1
    assert loads == []


def test_a_token_is_not_shown_in_messages():
    with pytest.raises(InvalidOptionError) as caught:
        LanguageModel.from_pretrained("x", token="hf_secret", dtype="nonsense")
    assert "hf_secret" not in str(caught.value)


def test_options_for_models_that_are_loaded_already_are_refused(draft, assistant) -> None:
    with pytest.raises(InvalidOptionError, match="dtype"):
        CoSDDecoder.from_pretrained(draft, assistant, dtype="float32")
    with pytest.raises(InvalidOptionError, match="unknown option 'alpha'"):
        CoSDDecoder.from_pretrained(draft, assistant, alpha=0.9)
    CoSDDecoder.from_pretrained(draft, assistant, dtype="auto", device="auto")


@pytest.mark.parametrize("schedule", ["fixed", "adaptive"])
def test_a_text_that_crosses_a_longrope_switch_is_processed_again_there(schedule: str) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 2.0, 3.0, 4.0],
        "long_factor": [4.0, 3.0, 2.0, 1.0],
        "original_max_position_embeddings": 32,
        "factor": 4.0,
    }
    models = [random_model(seed=seed, rope_parameters=rope, max_position_embeddings=128) for seed in (0, 1)]
    assert models[0].traits.rope_switch_length == 32
    assert not models[0].batchable
    verifier, prompts = RuleVerifier(alpha=0.9, beta=0.3), ["x" * 20, "x" * 31, "y" * 32, "x" * 40]
    written = [write(models[0], models[1:], verifier, prompt, max_new_tokens=20) for prompt in prompts]
    assert written[0].replaced, "something should be rolled back"
    for length in (1, 3, 8):
        decoder = CoSDDecoder(*models, verifier=verifier, draft_length=length, schedule=schedule)
        for each, generation in zip(written, decoder.generate(prompts, max_new_tokens=20), strict=True):
            assert_agrees(generation, each, asked=schedule == "fixed")


def test_a_model_whose_weights_are_offloaded_writes_the_same(
    tmp_path: Path, assistant: LanguageModel
) -> None:
    from accelerate import disk_offload

    plain, offloaded = random_model(seed=0), random_model(seed=0)
    disk_offload(offloaded.model, str(tmp_path), execution_device=torch.device("cpu"))
    assert offloaded.device == torch.device("cpu")
    prompts = ["hello", "a longer prompt"]
    texts = [
        [each.text for each in CoSDDecoder(model, assistant).generate(prompts, max_new_tokens=12)]
        for model in (plain, offloaded)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"), "lack the weights"),
        (
            lambda weights: weights.update({"model.layers.7.norm.weight": torch.ones(4)}),
            "hold unused weights",
        ),
    ],
    ids=["missing", "unexpected"],
)
def test_weights_that_do_not_fit_the_configuration_are_refused_by_name(
    folder: str, change: Callable[[dict[str, torch.Tensor]], Any], problem: str
) -> None:
    """transformers fills missing weights with random numbers, and drops unknown ones."""
    file = Path(folder) / "model.safetensors"
    weights = load_file(file)
    before = set(weights)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    [changed] = before ^ set(weights)
    with pytest.raises(ModelLoadError, match=f"{problem} '{re.escape(changed)}'"):
        LanguageModel.from_pretrained(folder)


def test_shared_weights_are_stored_once_and_not_missing(tmp_path: Path) -> None:
    folder = save(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(Path(folder) / "model.safetensors")
    assert LanguageModel.from_pretrained(folder).plan.batched
