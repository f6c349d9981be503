"""The code in the README and in `docs/` runs: the Python, and every call of `cosd`.

The pages name models `org/model-a`, ...; here these are folders, with the bundled chat models. A block
after the comment `<!-- not run: reason -->` is left out. Names that a page takes from its reader's program
are in `reader`.
"""

import asyncio
import json
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import peft
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from llama_index.core import Document, Settings, SummaryIndex
from pydantic import BaseModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import cosd_core
import langchain_cosd
import llama_index_cosd
from cosd_core.cli.app import app
from tests.gguf_files import llama, save_gguf
from tests.grids import but_for

ROOT = Path(__file__).parent.parent
HAS_LLAMA_CPP = all(find_spec(name) for name in ("llama_cpp", "gguf"))
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if HAS_LLAMA_CPP or page.stem != "gguf"
]
BLOCK = re.compile(r"(<!-- not run: .+ -->\n+)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WEIGHTS = ROOT / "examples/bundled_pairs/weights"
DEMO = ROOT / "cosd_core/demo/weights"
MODELS = {
    "model-a": WEIGHTS / "caller",
    "model-b": WEIGHTS / "talker",
    "model-c": WEIGHTS / "actor",
    "model-a-instruct": WEIGHTS / "caller",
    "model-b-instruct": WEIGHTS / "talker",
    "model-a-chat": WEIGHTS / "caller",
    "model-b-chat": WEIGHTS / "talker",
    "base": DEMO / "facts",
    "llama-based": DEMO / "facts",
    "llama-fine-tune": DEMO / "arithmetic",
    "qwen-based": WEIGHTS / "arithmetic_words",
}


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Look up the weather in a city."""
    return f"It is sunny in {city}."


def save_lora(base: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings(action="ignore"):  # PEFT asks for a property that transformers has renamed
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of the page's blocks that must run."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        (language, code) for skipped, language, code in found if not skipped and language in ("python", "sh")
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, weights in MODELS.items():
        shutil.copytree(weights, folder / "org" / name)
    save_lora(folder / "org/base", folder / "org/lora-for-law")
    save_lora(folder / "org/base", folder / "org/lora-for-sums")
    if HAS_LLAMA_CPP:
        (folder / "models").mkdir()
        for seed, name in enumerate(("draft", "assistant")):
            save_gguf(llama(seed), folder / f"models/{name}-q4_k_m.gguf")
    words = ("Oslo", "Rome", "Lasko", "Tamiro", "Nureda", "Paris")
    data = [{"prompt": f"Say {word}", "completion": f" {word}"} for word in words]
    questions = [{**line, "answer": word} for line, word in zip(data, words, strict=True)]
    write_lines(folder / "data.jsonl", data)
    for name in ("questions.jsonl", "others.jsonl", "sums.jsonl", "capitals.jsonl"):
        write_lines(folder / name, [{"max_new_tokens": 8}, *questions])
    (folder / "prompts.txt").write_text("Say Oslo\nSay Rome\n", encoding="utf-8")
    (folder / "prompt.txt").write_text("Say Oslo", encoding="utf-8")
    pair = f"--draft {folder}/org/model-a --assistant {folder}/org/model-b"
    cosd(f"cosd train-tree {pair} --data {folder}/data.jsonl --out {folder}/tree.json")
    for name in ("b.json", "c.json", "code.json"):
        shutil.copy(folder / "tree.json", folder / name)
    return folder


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reader(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the pages take from the program of their reader."""
    monkeypatch.setattr(Settings, "_llm", None)
    loop = asyncio.new_event_loop()  # LlamaIndex's synchronous calls would open one and leave it open
    asyncio.set_event_loop(loop)
    yield {
        "__name__": "page",
        "Person": Person,
        "get_weather": get_weather,
        "prompt": PromptTemplate.from_template("{question}"),
        "parser": StrOutputParser(),
        "index": SummaryIndex.from_documents([Document(text="Paris is the capital of France.")]),
    }
    loop.close()
    asyncio.set_event_loop(None)


def cosd(line: str) -> None:
    """Run one call of the command line, with its redirections."""
    words = shlex.split(line, comments=True)
    ends = dict(pairwise(words))
    text = Path(ends["<"]).read_text(encoding="utf-8") if "<" in ends else None
    arguments = list(takewhile(lambda word: word not in ("<", ">"), words[1:]))
    result = CliRunner().invoke(app, arguments, input=text)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    if ">" in ends:
        Path(ends[">"]).write_text(result.stdout, encoding="utf-8")


def test_every_page_is_among_the_pages() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "start.md", "usage.md", "langchain.md", "langgraph.md", "llama-index.md"} <= names


WITH_CODE = [page for page in PAGES if blocks(page)]
SLOW = {"command-line", "does-fusion-help"}
"""They tune, evaluate and bench."""


@pytest.mark.parametrize(
    "page",
    but_for([page for page in WITH_CODE if page.stem not in SLOW], WITH_CODE),
    ids=lambda page: page.stem,
)
def test_the_code_of_the_page_runs(page: Path, reader: dict[str, Any]) -> None:
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, page.name, "exec"), reader)
        for line in code.replace("\\\n", " ").splitlines() if language == "sh" else ():
            if line.startswith("cosd "):
                cosd(line)


@pytest.mark.parametrize(
    "package", [cosd_core, langchain_cosd, llama_index_cosd], ids=lambda each: each.__name__
)
def test_the_reference_has_every_public_name(package: Any) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    shown = set(re.findall(rf"^::: {package.__name__}\.(\w+)$", pages, re.MULTILINE))
    errors = (
        {name for name in package.__all__ if hasattr(cosd_core.errors, name)}
        if package is cosd_core
        else set()
    )
    assert set(package.__all__) - {"__version__"} == (shown & set(package.__all__)) | errors
