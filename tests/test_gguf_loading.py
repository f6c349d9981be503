"""Claims: GGUF files load by path or hub name, bad ones raise our errors, tokenizers are llama.cpp's."""

import gc
import json
import logging
import struct
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from typer.testing import CliRunner

pytest.importorskip("llama_cpp", reason="needs the extra cosd[gguf]")
pytest.importorskip("gguf")

from cosd_core import (
    ContextOverflowError,
    CoSDDecoder,
    CoSDError,
    GGUFModel,
    InvalidOptionError,
    LanguageModel,
    MissingExtraError,
    ModelLoadError,
    ModelUnloadedError,
    OutOfMemoryError,
    Settings,
    UnsupportedModelError,
    utils,
)
from cosd_core.cli.app import app
from cosd_core.models.gguf import library
from cosd_core.models.gguf.header import read_header
from cosd_core.models.loading import display_name
from tests.gguf_files import llama, save_gguf, save_lora
from tests.tokenizers import gpt2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_gguf(llama(0), tmp_path_factory.mktemp("gguf") / "tiny-q8.gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model for transformers."""
    path, model = tmp_path_factory.mktemp("twin") / "twin", llama(0)
    model.model.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return str(path)


def hub(cache: Path, *files: str) -> None:
    """A cache of the hub with files of ``org/repo``."""
    snapshot = cache / "models--org--repo/snapshots/abc"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / Path(file).name).symlink_to(file)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text("abc")


def test_a_path_and_a_name_on_the_hub_name_a_file(file: str, tmp_path: Path) -> None:
    hub(tmp_path, file)
    local = GGUFModel.from_pretrained(file, n_threads=1)
    assert (local.name, local.source) == ("tiny-q8.gguf", file)
    assert GGUFModel.from_pretrained(Path(file), n_threads=1) is local
    name = "org/repo:tiny-q8.gguf"
    remote = GGUFModel.from_pretrained(name, cache_dir=str(tmp_path), local_files_only=True)
    assert (remote.name, remote.source) == ("tiny-q8.gguf", name)
    assert remote.fingerprint == local.fingerprint
    settings = Settings(draft_model=name, assistant_model=file, cache_dir=str(tmp_path), n_ctx=128)
    assert settings.model_names == ["tiny-q8.gguf", "tiny-q8.gguf"]
    assert settings.known_context_length() == 128
    assert settings.decoder().generate("Paris", max_new_tokens=4).token_ids


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("org/repo:a-Q4_K_M.gguf", "a-Q4_K_M.gguf"), ("models/a.gguf", "a.gguf"), ("a.GGUF", "a.GGUF"),
        ("org/repo:sub/a.gguf", "a.gguf"), ("~/a.gguf", "a.gguf"), ("C:\\models\\a.gguf", "a.gguf"),
    ],
)  # fmt: skip
def test_the_name_is_that_of_the_file(source: str, name: str) -> None:
    assert display_name(source) == name


def test_a_relative_path_is_the_same_file(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(file).parent)
    assert GGUFModel.from_pretrained("tiny-q8.gguf", n_threads=1).source == file


def test_all_files_of_a_split_model_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "transformers.utils.hub.cached_file", lambda _, file, **__: asked.append(file) or file
    )
    with pytest.raises(ModelLoadError):
        GGUFModel.from_pretrained("org/repo:big-00001-of-00003.gguf")
    assert asked == [f"big-0000{part}-of-00003.gguf" for part in (1, 2, 3)]


def damaged(file: str, target: Path, change: Any) -> str:
    content = bytearray(Path(file).read_bytes())
    target.write_bytes(change(content))
    return str(target)


def test_bad_files_raise_our_errors(file: str, tmp_path: Path) -> None:
    cases = {
        "no such file": str(tmp_path / "missing.gguf"),
        "no GGUF file": damaged(file, tmp_path / "text.gguf", lambda content: b"hello" + content),
        "version 9": damaged(file, tmp_path / "v9.gguf", lambda c: c[:4] + struct.pack("<I", 9) + c[8:]),
        "header is damaged or ends too early": damaged(file, tmp_path / "cut.gguf", lambda c: c[:3000]),
        "corrupted or incomplete": damaged(file, tmp_path / "short.gguf", lambda c: c[: len(c) // 2]),
        "unknown model architecture": damaged(
            file, tmp_path / "x.gguf", lambda c: c.replace(b"llama", b"lhama")
        ),
        "cannot read": damaged(file, tmp_path / "empty.gguf", lambda _: b""),
    }
    for message, path in cases.items():
        with pytest.raises(ModelLoadError, match=message) as caught:
            GGUFModel.from_pretrained(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelLoadError, match=r"org/repo:x\.gguf"):
        GGUFModel.from_pretrained("org/repo:x.gguf", local_files_only=True, cache_dir=str(tmp_path))


def test_headers_cut_anywhere_raise_our_error(file: str, tmp_path: Path) -> None:
    size = read_header(file).size
    for end in [*range(0, 200, 7), *range(200, size, size // 60)]:
        with pytest.raises(ModelLoadError):
            read_header(damaged(file, tmp_path / "cut.gguf", lambda content, end=end: content[:end]))


def test_llama_cpp_writes_nothing(file: str, capfd: pytest.CaptureFixture[str], caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, logger="cosd.llama_cpp")
    GGUFModel.from_pretrained(file, n_threads=1, n_ctx=77).encode("x")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert "llama_model_loader" in caplog.text


def test_options_apply_to_the_models_that_have_them(file: str, folder: str) -> None:
    with pytest.raises(InvalidOptionError, match=r"n_ctx given, .* not apply to model .*transformers"):
        LanguageModel.from_pretrained(folder, n_ctx=64)
    for options in ({"dtype": "float16"}, {"device": "cpu"}, {"trust_remote_code": True}):
        with pytest.raises(InvalidOptionError, match=f"{next(iter(options))} given.*a GGUF file"):
            GGUFModel.from_pretrained(file, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="n_ctx=64 given, which applies to GGUF files alone"):
        CoSDDecoder.from_pretrained(folder, folder, n_ctx=64)
    with pytest.raises(InvalidOptionError, match=r"dtype=.*applies to models of transformers alone"):
        CoSDDecoder.from_pretrained(file, file, dtype="float16")
    mixed = CoSDDecoder.from_pretrained(folder, file, n_ctx=64, dtype="float32")
    assert mixed.assistants[0].context_length == 64
    with pytest.raises(ContextOverflowError):
        mixed.generate("x" * 100, max_new_tokens=60)
    with pytest.raises(InvalidOptionError, match="n_ctx given, but every model is loaded"):
        CoSDDecoder.from_pretrained(*mixed.models, n_ctx=64)
    with pytest.raises(InvalidOptionError, match="n_ctx=513 exceeds the 512 tokens"):
        GGUFModel.from_pretrained(file, n_ctx=513)
    for bad in ({"n_ctx": -1}, {"n_threads": 0}, {"n_gpu_layers": -2}, {"n_ctx": "many"}):
        with pytest.raises(InvalidOptionError, match=next(iter(bad))):
            GGUFModel.from_pretrained(file, **bad)  # type: ignore[arg-type]


def test_adapters_are_of_the_models_kind(file: str, folder: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match=r"adapter='org/lora' should be a GGUF file"):
        GGUFModel.from_pretrained(file, adapter="org/lora")
    with pytest.raises(InvalidOptionError, match=r"adapter='x\.gguf' is a GGUF file"):
        LanguageModel.from_pretrained(folder, adapter="x.gguf")
    with pytest.raises(InvalidOptionError, match=r"name=.*is a GGUF file.*GGUFModel"):
        LanguageModel.from_pretrained(file)
    with pytest.raises(ModelLoadError, match=r"cannot load adapter .* over model"):
        GGUFModel.from_pretrained(file, adapter=file)
    wide = save_lora(llama(0, hidden_size=128), tmp_path / "wide.gguf", seed=0)
    with pytest.raises(ModelLoadError, match=r"cannot load adapter .* over model"):
        GGUFModel.from_pretrained(file, adapter=wide)


def test_without_the_extra_the_error_names_it(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library.llama_cpp.cache_clear()
    for found, message in (("0.3.1", "there is 0.3.1"), (None, "there is none")):
        monkeypatch.setattr(utils, "version", lambda _, found=found: found or missing())
        with pytest.raises(MissingExtraError, match=rf"{message}: pip install \"cosd\[gguf\]\""):
            CoSDDecoder.from_pretrained(file, file, n_ctx=99)


def missing() -> str:
    raise PackageNotFoundError


def test_no_memory_for_a_context_is_our_error(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = GGUFModel.from_pretrained(file, n_threads=1)
    session = model.open_session(vocabulary=400)
    model.pool.close()
    monkeypatch.setattr(library.llama_cpp(), "llama_init_from_model", lambda *_: None)
    with pytest.raises(OutOfMemoryError, match="a context of 512 tokens"):
        session.logits([[1, 2]], last=1)  # type: ignore[attr-defined]


def test_a_failed_pass_loses_its_request_only(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = CoSDDecoder.from_pretrained(file, file, n_threads=1)
    expected = decoder.generate("Paris", max_new_tokens=8).text
    with monkeypatch.context() as patched:
        patched.setattr(library.llama_cpp(), "llama_decode", lambda *_: -3)
        with pytest.raises(CoSDError, match="status -3"):
            decoder.generate("Paris", max_new_tokens=8)
    assert decoder.generate("Paris", max_new_tokens=8).text == expected


def test_unload_frees_weights_and_contexts_at_once(file: str) -> None:
    model = GGUFModel.from_pretrained(file, n_threads=1, n_ctx=333)
    decoder = CoSDDecoder(model, model)
    decoder.generate(["Paris", "Rome"], max_new_tokens=8)
    weights, contexts = ref(model.pool.weights), [ref(each) for each in list_of(model)]
    assert len(contexts) == 2, "the contexts of finished calls are kept for the next"
    decoder.unload()
    model.unload()
    assert weights() is None
    assert [each() for each in contexts] == [None, None]
    with pytest.raises(ModelUnloadedError, match="load it again"):
        CoSDDecoder(model, model)
    assert GGUFModel.from_pretrained(file, n_threads=1, n_ctx=333) is not model


def list_of(model: GGUFModel) -> list[Any]:
    idle = model.pool._idle
    found = [idle.get_nowait() for _ in range(idle.qsize())]
    for context in found:
        idle.put(context)
    return found


def test_few_small_contexts_are_kept(file: str) -> None:
    model = GGUFModel.from_pretrained(file, n_threads=1, n_ctx=444)
    sessions: list[Any] = [model.open_session(vocabulary=400) for _ in range(5)]
    for session in sessions:
        session.logits([[1, 2, 3]], last=1)
    sessions[0].logits([[5] * 440] * 20, last=1)  # 8,800 positions
    session = None
    sessions.clear()
    gc.collect()
    assert [context.positions <= 4096 for context in list_of(model)] == [True, True]


def test_the_command_line_takes_files(file: str, folder: str) -> None:
    flags = ["--assistant", file, "--n-threads", "1", "--max-new-tokens", "6", "--json"]
    for draft in (file, folder):
        result = CliRunner().invoke(app, ["generate", "Paris", "--draft", draft, *flags])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["token_ids"]
    bench = ["--draft", file, *flags[:4], "--repeats", "1", "--max-new-tokens", "4", "--json"]
    result = CliRunner().invoke(app, ["bench", *bench])
    assert result.exit_code == 0, result.output
    assert "llama-cpp-python generate" in json.loads(result.stdout)[0]["method"]


# Tokenizers


def test_a_named_tokenizer_must_split_plain_texts_alike(file: str, folder: str, tmp_path: Path) -> None:
    named = GGUFModel.from_pretrained(file, tokenizer=folder, n_threads=1)
    assert named.encode("Paris, 12") == GGUFModel.from_pretrained(file, n_threads=1).encode("Paris, 12")
    gpt2(2000).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="into different tokens"):
        GGUFModel.from_pretrained(file, tokenizer=str(tmp_path))


def test_an_unknown_split_asks_for_the_tokenizer(folder: str, tmp_path: Path) -> None:
    path = save_gguf(llama(0), tmp_path / "viking.gguf", pre="viking")
    with pytest.raises(UnsupportedModelError, match=r"'viking', which is not known.*tokenizer=\.\.\."):
        GGUFModel.from_pretrained(path)


def test_another_kind_of_tokenizer_asks_for_the_tokenizer(file: str, tmp_path: Path) -> None:
    path = damaged(file, tmp_path / "x.gguf", lambda content: content.replace(b"gpt2", b"bpe2"))
    with pytest.raises(CoSDError):
        GGUFModel.from_pretrained(path)


@pytest.mark.parametrize("split", ["smollm", "qwen2", "llama-bpe", "tekken", "gpt-4o", "falcon", "default"])
def test_every_known_way_to_split_agrees_with_llama_cpp(split: str, tmp_path: Path) -> None:
    """Loading compares them; here a file with merges whose pieces cross the borders of words."""
    path = save_gguf(llama(0, gpt2(2000)), tmp_path / "tiny.gguf", pre=split)
    model = GGUFModel.from_pretrained(path, n_threads=1)
    for text in ("12345 l'été  \n\n x", "<|endoftext|>a<|endoftext|> b", "DON'T stop  123abc½"):
        assert model.encode(text, add_special_tokens=False) == model.pool.weights.tokenize(text)
