"""The command line: what it prints, where, and with which exit code."""

import io
import json
from pathlib import Path

import pytest

from cosd_core import CoSDDecoder, TreeVerifier, __version__
from cosd_core.cli import main
from cosd_core.demo import KINDS, load_pair
from cosd_core.options import GenerationOptions
from examples.bundled_pairs.questions import practice

IRON = "Q: atomic number of iron plus 7? A:"
TWO_TREES = ["--out", "b.json", "--out", "c.json"]


class Output:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cosd(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run the command line in this process."""

    def run(*arguments: str, stdin: str = "") -> Output:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr("sys.argv", ["cosd", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capfd.readouterr()
        return Output(code, out, err)

    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The bundled pair as two folders, as a user would have them."""
    folder = tmp_path_factory.mktemp("pair")
    for name, model in zip(("facts", "arithmetic"), load_pair(), strict=True):
        model.model.save_pretrained(folder / name)
        model.tokenizer.save_pretrained(folder / name)
    return str(folder / "facts"), str(folder / "arithmetic")


def models(pair: tuple[str, str]) -> list[str]:
    return ["--draft", pair[0], "--assistant", pair[1]]


def test_version(cosd) -> None:
    assert cosd("--version").out.strip() == f"cosd {__version__}"


def test_without_arguments_it_teaches(cosd) -> None:
    output = cosd()
    assert all(command in output.out + output.err for command in ("demo", "generate", "bench"))


def test_the_demo_shows_that_only_both_together_are_right(cosd) -> None:
    line = next(line for line in cosd("demo").out.splitlines() if "26+7=33" in line)
    assert line.count("✗") == 2
    assert line.count("✓") == 1


def test_the_demo_answers_a_question_of_ones_own_and_writes_a_page(cosd, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    output = cosd("demo", "atomic number of iron plus 7?", "--html", str(page))
    assert output.code == 0
    assert "iron is 26, 26+7=33" in output.out
    assert "<html" in page.read_text(encoding="utf-8")


def test_generate_streams_the_text_alone_to_standard_output(cosd, pair) -> None:
    output = cosd("generate", *models(pair), IRON)
    assert output.out == CoSDDecoder(*load_pair()).generate(IRON).text + "\n"
    assert output.code == 0


def test_generate_reads_standard_input(cosd, pair) -> None:
    assert "26+7=33" in cosd("generate", *models(pair), stdin=IRON).out


def test_json_holds_the_whole_generation(cosd, pair) -> None:
    result = json.loads(cosd("generate", *models(pair), "--json", IRON).out)
    assert result == {
        **CoSDDecoder(*load_pair()).generate(IRON).to_dict(),
        "stats": result["stats"],
        "models": ["facts", "arithmetic"],
    }
    assert result["stats"]["replaced"] > 0


def test_explain_and_html(cosd, pair, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    output = cosd("generate", *models(pair), "--explain", "--html", str(page), IRON)
    assert "the draft was unsure" in output.out
    assert "26" in page.read_text(encoding="utf-8")


def test_sampling_flags_reach_the_decoder(cosd, pair) -> None:
    flags = ["--temperature", "1.5", "--seed", "4", "--top-k", "40", "--max-new-tokens", "12", "--stop", "9"]
    expected = CoSDDecoder(*load_pair()).generate(
        IRON, temperature=1.5, seed=4, top_k=40, max_new_tokens=12, stop="9"
    )
    assert cosd("generate", *models(pair), *flags, IRON).out == expected.text + "\n"


def test_every_option_of_a_generation_is_a_flag(cosd) -> None:
    text = cosd("generate", "--help").out
    for name in set(GenerationOptions.model_fields) - {"grammar", "logits_processor", "eos_token_id"}:
        assert f"--{name.replace('_', '-')[:16]}" in text, name


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate", "hello"], 2, "--draft is missing"),
        (["generate", "--draft", "./nothing", "--assistant", "./nothing", "x"], 1, "'./nothing'"),
        (["generate", "PAIR", "--verifier", "vote", "x"], 2, "'vote'"),
        (["generate", "PAIR", "--verifier", "tree", "x"], 2, "tree"),
        (["generate", "PAIR", "--verifier", "tree", "--tree-path", "none.json", "x"], 1, "none.json"),
        (["generate", "PAIR", "--verifier", "average", "--alpha", "0.3", "x"], 2, "alpha=0.3"),
        (["generate", "PAIR", "--max-new-tokens", "0", "x"], 2, "max_new_tokens=0"),
        (["generate", "PAIR", "--max-new-tokens", "many", "x"], 2, "--max-new-tokens"),
        (["generate", "PAIR", "--temprature", "1", "x"], 2, "--temprature"),
        (["generate", "PAIR", ""], 1, "empty"),
        (["generate", "PAIR", "--max-new-tokens", "100000", "x"], 1, "100000"),
        (["bench", "PAIR", "--prompts", "nowhere.txt"], 1, "nowhere.txt"),
        (["generate", "PAIR", "--calibration", "1.5", "x"], 2, "2 numbers"),
        (["generate", "PAIR", "--calibration", "0", "--calibration", "1", "x"], 2, "calibration=0.0"),
        (["train-tree", "PAIR", "--data", "none.jsonl", "--out", "t.json"], 1, "none.jsonl"),
        (["train-tree", "--data", "none.jsonl", "--out", "t.json"], 2, "--draft is missing"),
        (["train-tree", "PAIR", "--data", "none.jsonl"], 2, "--out"),
        (["train-tree", "PAIR", "--data", "none.jsonl", "--out", "no/t.json"], 2, "no/t.json"),
        (["train-tree", "PAIR", "--data", "pyproject.toml", "--out", "t.json"], 1, "pyproject.toml, line 1"),
    ],
)
def test_errors_are_one_line_on_standard_error(
    cosd, pair, arguments: list[str], code: int, words: str
) -> None:
    given = [word for each in arguments for word in (models(pair) if each == "PAIR" else [each])]
    output = cosd(*given)
    assert output.code == code
    assert words in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_bench_measures_every_method(cosd, pair, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Q: 3+4? A:\nQ: capital of France? A:\n", encoding="utf-8")
    output = cosd(
        "bench", *models(pair), "--prompts", str(prompts), "--repeats", "1", "--batch-size", "2", "--json"
    )
    rows = {row["method"]: row for row in json.loads(output.out)}
    assert rows["transformers generate, draft model"]["relative"] == 1
    for same in ("transformers prompt lookup, draft model", "draft, lookup"):
        assert rows[same]["tokens"] == rows["draft"]["tokens"]
    assert rows["transformers assisted generation"]["tokens"] == rows["speculative"]["tokens"]
    assert all(0 < row["first_token"] <= row["seconds"][0] for row in rows.values())
    assert rows["rule, adaptive, batches of 2"]["batch_size"] == 2
    assert rows["draft"]["assistant_passes"] == 0
    assert rows["draft"]["tokens"] == rows["transformers generate, draft model"]["tokens"]
    assert {"assistant", "average", "speculative"} < set(rows)
    assert all(row["tokens_per_second"] > 0 for row in rows.values())


def test_bench_brings_prompts_to_a_length_and_draws(cosd, pair, tmp_path: Path) -> None:
    prompts, plots = tmp_path / "prompts.txt", [tmp_path / "lengths.svg", tmp_path / "methods.svg"]
    prompts.write_text("Q: 3+4? A:\nQ: capital of France? A:\n", encoding="utf-8")
    run = ("bench", *models(pair), "--prompts", str(prompts), "--repeats", "1", "--max-new-tokens", "4")
    output = cosd(*run, "--prompt-tokens", "20", "--prompt-tokens", "50", "--plot", str(plots[0]), "--json")
    assert {row["prompt_tokens"] for row in json.loads(output.out)} == {20, 50}
    assert "ms to the first token" in cosd(*run, "--plot", str(plots[1])).out
    assert all(each.read_text(encoding="utf-8").startswith("<?xml") for each in plots)
    assert "context" in cosd(*run, "--prompt-tokens", "5000").err


def test_the_newline_that_ends_standard_input_is_no_part_of_the_prompt(cosd, pair) -> None:
    assert cosd("generate", *models(pair), stdin=IRON + "\n").out == cosd("generate", *models(pair), IRON).out


def test_a_page_that_cannot_be_written_is_an_error_of_one_line(cosd, tmp_path: Path) -> None:
    output = cosd("demo", "--html", str(tmp_path / "no" / "page.html"), "Q: 3+4? A:")
    assert output.code == 1
    assert "cannot write" in output.err
    assert "Traceback" not in output.err


def test_end_tokens_can_be_given_as_flags(cosd, pair) -> None:
    plain = cosd("generate", *models(pair), "Q: 37+8? A:").out
    cut = cosd("generate", *models(pair), "--eos-token-id", str(ord("=")), "Q: 37+8? A:").out
    assert plain == " 37+8=45\n"
    assert cut == " 37+8=\n"


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> str:
    """True answers to questions of every kind."""
    path = tmp_path_factory.mktemp("lessons") / "lessons.jsonl"
    records = [
        {"prompt": each.prompt, "completion": each.answer} for kind in KINDS for each in practice(kind, 10)
    ]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return str(path)


def test_a_tree_is_learned_reported_and_used(cosd, pair, lessons: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree.json"
    output = cosd("train-tree", *models(pair), "--data", lessons, "--out", str(tree))
    assert output.code == 0
    about = TreeVerifier.load(tree).about
    assert about["examples"] == 30
    for words in (
        "y replaces a different x",
        "only the assistant is right",
        f"at most {about['chosen']['depth']}, at least {about['chosen']['leaf']}",
        f"--verifier tree --tree-path {tree}",
    ):
        assert words in output.out
    assert f"{about['positions']['replace']:,}" in output.out
    answer = cosd("generate", *models(pair), "--verifier", "tree", "--tree-path", str(tree), IRON)
    assert "26+7=33" in answer.out


def test_a_calibrated_tree_comes_with_the_settings_to_use(cosd, pair, lessons: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree.json"
    output = cosd(
        "train-tree", *models(pair), "--data", lessons, "--out", str(tree), "--calibrate", "--no-agreeing",
        "--tokens-per-pass", "300", "--checkpoint", str(tmp_path / "done"),
    )  # fmt: skip
    about = TreeVerifier.load(tree).about
    flags = output.out.strip().splitlines()[-1].split("use it with ")[1].split()
    assert [float(each) for each in flags[-3::2]] == about["calibration"]
    assert about["positions"]["agreeing"] == 0
    assert output.out.count("temperature 1\n") == 2
    assert list((tmp_path / "done").glob("*.npz"))
    expected = CoSDDecoder(
        *load_pair(), verifier=TreeVerifier.load(tree), calibration=about["calibration"]
    ).generate(IRON)
    assert cosd("generate", *models(pair), *flags, IRON).out == expected.text + "\n"
