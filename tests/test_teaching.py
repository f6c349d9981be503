"""Claim: teacher forcing notes what each model would write, position by position, in bounded memory."""

import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import (
    Chat,
    CoSDError,
    Example,
    InvalidOptionError,
    LanguageModel,
    ModelOutputError,
    Observations,
    TrainingDataError,
    observe,
    read_examples,
)
from cosd_core.training import teacher_forcing
from tests.grids import covering, exhaustive
from tests.models import (
    EOS,
    byte_tokenizer,
    counted_passes,
    on_pass,
    random_model,
    table_model,
    word_tokenizer,
)

ROOT = Path(__file__).parent.parent
MODELS = [random_model(seed=seed, sharpness=sharp) for seed, sharp in ((0, 6.0), (1, 2.0), (2, 12.0))]
PAIR = MODELS[:2]
DATA = [
    ("Hello", ", world"),
    ("x", ""),
    ("The quick brown fox jumps over", " the lazy dog, again and again and again"),
    ("naïve 你好", " 🦊."),
    ("1 + 1 =", " 2"),
]


def distributions(model: LanguageModel, prompt: Sequence[int], truth: Sequence[int]) -> list[np.ndarray]:
    """The logits before every true token: a pass without cache over each true prefix."""
    with torch.inference_mode():
        return [
            model.model(input_ids=torch.tensor([[*prompt, *truth[:at]]]), use_cache=False)
            .logits[0, -1]
            .double()
            .numpy()
            for at in range(len(truth))
        ]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    weights = np.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def assert_observed(
    observations: Observations, texts: Sequence[tuple[list[int], list[int]]], models: Sequence[LanguageModel]
) -> None:
    """Everything that is noted, and everything that is derived from it, is the plain computation's."""
    logits = [
        [each for prompt, truth in texts for each in distributions(model, prompt, truth)] for model in models
    ]
    shares = [[softmax(each) for each in one] for one in logits]
    truth = [token for _, tokens in texts for token in tokens]
    assert observations.truth.tolist() == truth
    assert observations.example.tolist() == [at for at, (_, tokens) in enumerate(texts) for _ in tokens]
    assert observations.names == tuple(model.name for model in models)
    for i in range(len(models)):
        picks = [int(each.argmax()) for each in logits[i]]
        assert observations.predicted[:, i].tolist() == picks
        close(observations.confidences()[:, i], [each.max() for each in shares[i]])
        close(
            observations.gaps[:, i],
            [each[token] - each.max() for each, token in zip(logits[i], truth, strict=True)],
            1e-4,
        )
        assert observations.right[:, i].tolist() == [
            pick == token for pick, token in zip(picks, truth, strict=True)
        ]
        for temperature in (0.25, 0.3, 0.5, 0.77, 1.0, 1.37, 2.0, 5.0, 8.0):
            temperatures = [1.0] * len(models)
            temperatures[i] = temperature
            cooled = [softmax(each, temperature) for each in logits[i]]
            close(observations.confidences(temperatures)[:, i], [each.max() for each in cooled], 2e-3)
            close(
                observations.log_likelihoods(temperatures)[:, i],
                [np.log(each[token]) for each, token in zip(cooled, truth, strict=True)],
                3e-3,
            )
    assert np.array_equal(
        observations.agreement, observations.predicted[:, 1:] == observations.predicted[:, [0]]
    )


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def in_bytes(data: Sequence[tuple[str, str]], *, end: bool = True) -> list[tuple[list[int], list[int]]]:
    encode = byte_tokenizer().encode
    return [(encode(prompt), [*encode(completion), *([EOS] if end else [])]) for prompt, completion in data]


class TestWhatIsNoted:
    @pytest.mark.parametrize(("count", "tokens_per_pass"), covering(product([1, 2, 3], [1, 7, 50, 64, 4096])))
    def test_is_the_uncached_computation(self, count: int, tokens_per_pass: int) -> None:
        observations = observe(MODELS[:count], DATA, tokens_per_pass=tokens_per_pass)
        assert_observed(observations, in_bytes(DATA), MODELS[:count])

    @settings(deadline=None, max_examples=25)
    @given(
        data=st.lists(
            st.tuples(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12)),
            min_size=1,
            max_size=5,
        ),
        tokens_per_pass=st.integers(1, 60),
        end=st.booleans(),
    )
    def test_whatever_the_texts(self, data: list[tuple[str, str]], tokens_per_pass: int, end: bool) -> None:
        observations = observe(PAIR, data, tokens_per_pass=tokens_per_pass, end_token=end)
        assert_observed(observations, in_bytes(data, end=end), PAIR)

    def test_can_be_worked_out_by_eye(self) -> None:
        words = word_tokenizer("<eos>", "the", "cat", "dog", "sat")
        draft = table_model(
            words,
            {"the": {"cat": 0.5, "dog": 0.25, "sat": 0.25}, "cat": {"sat": 0.75, "dog": 0.25}},
            name="draft",
        )
        other = table_model(
            words,
            {"the": {"dog": 0.8, "cat": 0.2}, "dog": {"sat": 1.0}, "cat": {"dog": 0.6, "sat": 0.4}},
            name="other",
        )
        seen = observe([draft, other], [("the", "dog sat"), ("the", "cat dog")])
        names = ["<eos>", "the", "cat", "dog", "sat"]
        assert [names[each] for each in seen.truth] == ["dog", "sat", "<eos>", "cat", "dog", "<eos>"]
        assert [[names[each] for each in row] for row in seen.predicted] == [
            ["cat", "dog"], ["<eos>", "sat"], ["<eos>", "<eos>"],
            ["cat", "dog"], ["sat", "dog"], ["<eos>", "sat"],
        ]  # fmt: skip
        close(seen.confidences(), [[0.5, 0.8], [1.0, 1.0], [1.0, 1.0], [0.5, 0.8], [0.75, 0.6], [1.0, 1.0]])
        close(seen.log_likelihoods()[[0, 3]], np.log([[0.25, 0.8], [0.5, 0.2]]))
        decisions = seen.decisions()
        # the cat sat: only y is right; nobody is wrong; both end; x is right; only y is; x is right
        assert decisions.replace.tolist() == [True, True, False, False, True, False]
        assert decisions.agrees.tolist() == [False, False, True, False, False, False]
        assert decisions.example.tolist() == [0, 0, 0, 1, 1, 1]
        assert decisions.dropped == 0
        close(decisions.points[[0, 4]], [[0.5, 0.8], [0.75, 0.6]])
        assert seen.decisions(agreeing=False).replace.tolist() == [True, True, False, True, False]

    def test_positions_where_nobody_is_right_are_dropped(self) -> None:
        seen = observe(MODELS, [("x", "yz" * 20)], end_token=False)
        decisions = seen.decisions()
        right = seen.right
        expected = sum(int((~right[:, 0] & ~right[:, at]).sum()) for at in (1, 2))
        assert decisions.dropped == expected > 0
        assert len(decisions) == 2 * 40 - expected

    def test_a_model_that_is_certain_is_no_trouble(self) -> None:
        words = word_tokenizer("<eos>", "a", "b")
        model = table_model(words, {"a": {"b": 1.0}}, name="certain")
        seen = observe([model, model], [("a", "a a")])
        for calibration in (None, (0.3, 6.0)):
            assert np.isfinite(seen.log_likelihoods(calibration)).all()
            close(seen.confidences(calibration), np.ones((3, 2)))


class TestRolesAndParts:
    def test_roles_can_be_exchanged_afterwards(self) -> None:
        seen, other = observe(MODELS, DATA), observe([MODELS[2], MODELS[0]], DATA)
        assert_same(seen.of_models(2, 0), other)

    def test_examples_can_be_picked(self) -> None:
        seen = observe(PAIR, DATA)
        part = seen.of_examples(np.array([4, 1]))
        assert (part.examples, set(part.example.tolist())) == (2, {1, 4})
        assert part.truth.tolist() == [token for at in (1, 4) for token in in_bytes(DATA)[at][1]]

    def test_what_is_saved_comes_back(self, tmp_path: Path) -> None:
        seen = observe(PAIR, DATA)
        seen.save(tmp_path / "seen.npz")
        assert_same(Observations.load(tmp_path / "seen.npz"), seen)

    def test_a_hostile_file_is_refused_and_not_executed(self, tmp_path: Path) -> None:
        class Canary:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "canary",)

        place = tmp_path / "seen.npz"
        contents: list[Any] = [b"", b"no archive", pickle.dumps(Canary())]
        for content in contents:
            place.write_bytes(content)
            with pytest.raises(TrainingDataError, match=r"seen\.npz"):
                Observations.load(place)
        np.savez(place, names=np.array([Canary()], dtype=object))
        with pytest.raises(TrainingDataError, match=r"seen\.npz"):
            Observations.load(place)
        assert not (tmp_path / "canary").exists()

    def test_temperatures_that_were_not_observed_are_refused(self) -> None:
        seen = observe(PAIR, DATA)
        for wrong in ((0.2, 1.0), (1.0, 9.0), (1.0,), (0.0, 1.0)):
            with pytest.raises(InvalidOptionError, match="calibration"):
                seen.confidences(wrong)


def assert_same(found: Observations, expected: Observations) -> None:
    assert found.names == expected.names
    for name in ("example", "truth", "predicted", "cut"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name in ("gaps", "partitions", "slopes"):
        close(getattr(found, name), getattr(expected, name))


class TestWhatIsRead:
    def test_any_form_of_the_data_gives_the_same(self, tmp_path: Path) -> None:
        records = [{"prompt": prompt, "completion": completion, "id": 3} for prompt, completion in DATA]
        file = tmp_path / "data.jsonl"
        file.write_text("\n\n".join(map(json.dumps, records)) + "\n", encoding="utf-8-sig")
        encode = byte_tokenizer().encode
        forms: list[Any] = [
            file,
            str(file),
            records,
            (each for each in DATA),
            [list(each) for each in DATA],
            list(read_examples(DATA)),
            [(encode(prompt), encode(completion) or "") for prompt, completion in DATA],
        ]
        for form in forms:
            assert_same(observe(PAIR, form), observe(PAIR, DATA))

    def test_a_data_set_of_the_datasets_library_is_read(self) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"prompt": ["a", "b"], "completion": ["c", "d"]})
        assert [each.completion for each in read_examples(data)] == ["c", "d"]

    def test_a_chat_is_shown_to_every_model_by_its_own_template(self) -> None:
        models = [random_model(seed=seed) for seed in range(2)]
        shown = []
        for at, model in enumerate(models):
            tokenizer = pickle.loads(pickle.dumps(byte_tokenizer()))
            tokenizer.chat_template = (
                "{% for m in messages %}" + "<" * (1 + 4 * at) + "{{ m.content }}>{% endfor %}"
            )
            model.tokenizer = tokenizer
            shown.append(tokenizer.encode("<" * (1 + 4 * at) + "hi>"))
        messages = [{"role": "user", "content": "hi"}]
        for prompt in (messages, Chat(messages)):
            seen = observe(models, [(prompt, "hello")], tokens_per_pass=3)
            truth = [*byte_tokenizer().encode("hello"), EOS]
            for at, model in enumerate(models):
                logits = distributions(model, shown[at], truth)
                assert seen.predicted[:, at].tolist() == [int(each.argmax()) for each in logits]
                close(seen.confidences()[:, at], [softmax(each).max() for each in logits])

    @pytest.mark.parametrize(
        ("end", "completion", "truth"),
        [
            (True, "ab", [*b"ab", EOS]),
            (False, "ab", [*b"ab"]),
            (True, "", [EOS]),
            (True, [65, EOS], [65, EOS]),
            (False, [65, EOS], [65, EOS]),
        ],
    )
    def test_the_end_token_is_learned_unless_texts_do_not_end(self, end, completion, truth) -> None:
        encode = byte_tokenizer().encode
        expected = [each if each == EOS else encode(chr(each))[0] for each in truth]
        if not isinstance(completion, str):
            completion = [each if each == EOS else encode(chr(each))[0] for each in completion]
        assert observe(PAIR, [("x", completion)], end_token=end).truth.tolist() == expected

    def test_texts_too_long_are_cut_and_counted(self) -> None:
        models = [random_model(seed=seed, max_position_embeddings=20 + 8 * seed) for seed in range(2)]
        data = [
            ("p" * 15, "c" * 5),
            ("p" * 16, "c" * 5),
            ("p" * 50, "abcdefghij" * 5),
            ("q", "abcdefghij" * 3),
        ]
        seen = observe(models, data, end_token=False)
        assert seen.truncated == 3
        assert sorted(set(seen.example[seen.cut].tolist())) == [1, 2, 3]
        kept = [
            ("p" * 15, "c" * 5),
            ("p" * 15, "c" * 5),
            ("p" * 10, "abcdefghij"),
            ("q", "abcdefghij" * 1 + "abcdefghi"),
        ]
        assert_observed(seen, in_bytes(kept, end=False), models)

    BAD: tuple[tuple[str, str], ...] = (
        ('{"prompt": "a"', "line 2 is not JSON"),
        ("[1, 2]", "line 2 is [1, 2]; it should be an object"),
        ('"text"', "line 2 is 'text'"),
        ("null", "line 2 is None"),
        ('{"prompt": "a"}', "line 2 has no 'completion'; it has ['prompt']"),
        ('{"completion": "a"}', "line 2 has no 'prompt'"),
        ('{"prompt": 3, "completion": "a"}', "the prompt of data.jsonl, line 2 is 3"),
        ('{"prompt": null, "completion": "a"}', "the prompt of data.jsonl, line 2 is None"),
        ('{"prompt": "a", "completion": ["b"]}', "the completion of data.jsonl, line 2 is ['b']"),
        ('{"prompt": "a", "completion": {}}', "the completion of data.jsonl, line 2 is {}"),
        ('{"prompt": "", "completion": "a"}', "data.jsonl, line 2: prompt '' is empty"),
        ('{"prompt": "a", "completion": [1, 999]}', "line 2 holds token id 999"),
        ('{"prompt": [-4], "completion": "a"}', "line 2: the prompt holds token id -4"),
        ('{"prompt": "\\ud800", "completion": "a"}', "the prompt of data.jsonl, line 2 is no text"),
        ('{"prompt": "a", "completion": "\\ud800"}', "the completion of data.jsonl, line 2 is no text"),
        ('{"prompt": [{"content": "hi"}], "completion": "a"}', "the prompt of data.jsonl, line 2"),
        ("\xff", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
    )  # fmt: skip

    @pytest.mark.parametrize(("line", "words"), BAD)
    def test_a_bad_line_is_named_with_what_is_wrong(self, tmp_path, monkeypatch, line: str, words: str):
        monkeypatch.chdir(tmp_path)
        good = '{"prompt": "a", "completion": "b"}\n'
        Path("data.jsonl").write_bytes(good.encode() + line.encode("latin-1") + b"\n")
        with pytest.raises(TrainingDataError) as caught:
            observe(PAIR, "data.jsonl")
        assert words in str(caught.value)
        assert "data.jsonl" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ([], "no example"),
            (["ab"], "record 1 is 'ab'"),
            ([("a", "b"), ("a", "b", "c")], "record 2"),
            ([("a", "b"), {"Prompt": "a"}], "record 2 has no 'prompt'; it has ['Prompt']"),
            ([("a", "b"), None], "record 2 is None"),
            ({"train": []}, "record 1 is 'train'"),
            (5, "data=5"),
            ("nowhere.jsonl", "cannot read training data 'nowhere.jsonl'"),
            ([Example("", "a", "the third page")], "the third page"),
        ],
    )
    def test_so_is_a_bad_record(self, data: Any, words: str) -> None:
        with pytest.raises(TrainingDataError) as caught:
            observe(PAIR, data)
        assert words in str(caught.value)

    def test_a_completion_without_a_token_is_refused_if_texts_do_not_end(self) -> None:
        with pytest.raises(TrainingDataError, match="completion of record 1 is empty"):
            observe(PAIR, [("a", "")], end_token=False)

    @pytest.mark.parametrize("tokens", [0, -1, 1.5, True, None, "9"])
    def test_wrong_budgets_are_refused(self, tokens: Any) -> None:
        with pytest.raises(InvalidOptionError, match="tokens_per_pass="):
            observe(PAIR, DATA, tokens_per_pass=tokens)

    def test_a_model_gone_mad_is_named(self) -> None:
        def poison(_number: int, output: Any) -> None:
            output.logits[:] = float("nan")

        with on_pass(PAIR[1], poison), pytest.raises(ModelOutputError, match="random-1"):
            observe(PAIR, DATA)


MEASURE = """
import resource, torch
from cosd_core import observe
from tests.models import random_model

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
pair = [
    random_model(seed=seed, vocabulary=20_000, dtype=torch.float32, max_position_embeddings=4096)
    for seed in range(2)
]
for model in pair:
    model.vocabulary_size = 20_000  # the tokenizer knows only bytes
observe(pair, [([1] * 20, [5] * 50)], tokens_per_pass=32)
before = peak()
observe(pair, [([1] * 20, [5, 6, 7] * length) for length in (500, 200, 100)], tokens_per_pass=32)
print(peak() - before)
"""


class TestWork:
    @exhaustive
    @pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in kilobytes on Linux")
    def test_memory_does_not_grow_with_the_texts(self) -> None:
        result = subprocess.run(
            [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, cwd=ROOT
        )
        everything = 2 * 2400 * 20_000 * 4 / 2**20
        assert float(result.stdout) < everything / 4

    @pytest.mark.parametrize("tokens_per_pass", [8, 40, 100])
    def test_no_pass_reads_more_positions_than_the_budget(self, tokens_per_pass: int) -> None:
        read: list[tuple[int, ...]] = []
        data = [("x" * (7 * at % 40 + 1), "y" * (11 * at % 30 + 1)) for at in range(25)]
        data.append(("p" * 150, "c" * 100))
        with on_pass(PAIR[0], lambda _, output: read.append(tuple(output.logits.shape))):
            observe(PAIR, data, tokens_per_pass=tokens_per_pass)
        assert max(rows * places for rows, places, _ in read) <= tokens_per_pass

    def test_numbers_are_reduced_in_pieces(self, monkeypatch) -> None:
        expected = observe(PAIR, DATA)
        monkeypatch.setattr(teacher_forcing, "_NUMBERS_AT_ONCE", 3 * 257)
        assert_same(observe(PAIR, DATA), expected)

    def test_prompts_have_no_logits(self) -> None:
        read: list[int] = []
        with on_pass(PAIR[0], lambda _, output: read.append(output.logits.shape[1])):
            observe(PAIR, [("p" * 200, "c" * 9)], tokens_per_pass=32)
        assert sum(read) <= 10 + len(read)

    def test_texts_of_like_length_share_a_pass(self) -> None:
        data = [("x" * 10, "y" * 9), ("x" * 100, "y" * 100)] * 16
        with counted_passes(*PAIR) as log:
            observe(PAIR, data, tokens_per_pass=1024)
        # of length 200, counting the end, five fit; of length 19 all sixteen
        assert len(log) == 2 * (4 + 1)

    def test_progress_is_told_in_positions(self) -> None:
        told: list[tuple[int, int]] = []
        observe(PAIR, DATA, tokens_per_pass=30, progress=lambda *each: told.append(each))
        total = sum(len(truth) for _, truth in in_bytes(DATA))
        assert told[0] == (0, total)
        assert told[-1] == (total, total)
        assert len(told) > 2
        assert told == sorted(told)


class TestGoingOn:
    def interrupted(self, folder: Path, *, after: int) -> None:
        def stop(done: int, total: int) -> None:
            nonlocal after
            after -= 1
            if after < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            observe(PAIR, DATA, tokens_per_pass=30, checkpoint=folder, progress=stop)

    def test_an_interrupted_run_goes_on_where_it_stopped(self, tmp_path: Path) -> None:
        folder = tmp_path / "some" / "folder"
        with counted_passes(*PAIR) as whole:
            expected = observe(PAIR, DATA, tokens_per_pass=30)
        with counted_passes(*PAIR) as before:
            self.interrupted(folder, after=3)
        with counted_passes(*PAIR) as after:
            seen = observe(PAIR, DATA, tokens_per_pass=30, checkpoint=folder)
        assert_same(seen, expected)
        assert max(len(before), len(after)) < len(whole)
        with counted_passes(*PAIR) as again:
            assert_same(observe(PAIR, DATA, tokens_per_pass=30, checkpoint=folder), expected)
        assert not again

    def test_what_is_damaged_is_read_again(self, tmp_path: Path) -> None:
        expected = observe(PAIR, DATA, tokens_per_pass=30, checkpoint=tmp_path)
        files = sorted(tmp_path.glob("*.npz"))
        assert len(files) > 2
        files[0].write_bytes(b"")
        files[1].write_bytes(files[1].read_bytes()[:100])
        files[2].unlink()
        assert_same(observe(PAIR, DATA, tokens_per_pass=30, checkpoint=tmp_path), expected)

    @pytest.mark.parametrize(
        ("models", "data", "options"),
        [
            (PAIR, DATA[1:], {}),
            (PAIR, DATA[2:], {"end_token": False}),
            (PAIR, DATA, {"tokens_per_pass": 31}),
            (PAIR[::-1], DATA, {}),
            (MODELS, DATA, {}),
            ([random_model(seed=0, intermediate_size=16), PAIR[1]], DATA, {}),
        ],
    )
    def test_batches_of_something_else_are_not_used(self, tmp_path, models, data, options) -> None:
        observe(PAIR, DATA, tokens_per_pass=30, checkpoint=tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        options = {"tokens_per_pass": 30, **options}
        assert_same(observe(models, data, checkpoint=tmp_path, **options), observe(models, data, **options))
        assert before == {path: path.read_bytes() for path in before}
        assert len(list(tmp_path.iterdir())) > len(before)

    def test_nor_are_those_of_a_fine_tuned_model_of_the_same_name(self, tmp_path: Path) -> None:
        observe(PAIR, DATA, checkpoint=tmp_path)
        other = LanguageModel(random_model(seed=7).model, byte_tokenizer(), name=PAIR[0].name)
        with_files = observe([other, PAIR[1]], DATA, checkpoint=tmp_path)
        assert_same(with_files, observe([other, PAIR[1]], DATA))

    @pytest.mark.parametrize("shape", [(0,), (3,), (1, 2, 3)])
    @pytest.mark.parametrize("array", ["predicted", "slopes", "example"])
    def test_arrays_of_another_shape_count_as_damaged(self, tmp_path: Path, array: str, shape: Any) -> None:
        expected = observe(PAIR, DATA, tokens_per_pass=30, checkpoint=tmp_path)
        file = min(tmp_path.glob("*.npz"))
        with np.load(file) as stored:
            arrays = {**stored, array: np.zeros(shape, stored[array].dtype)}
        np.savez(file, **arrays)
        assert_same(observe(PAIR, DATA, tokens_per_pass=30, checkpoint=tmp_path), expected)

    def test_two_runs_share_a_folder_at_the_same_time(self, tmp_path: Path) -> None:
        expected = observe(PAIR, DATA, tokens_per_pass=30)
        both = Barrier(2)

        def run() -> Observations:
            def wait(done: int, total: int) -> None:
                with suppress(BrokenBarrierError):  # one may have found all batches of the other
                    both.wait(timeout=5)

            return observe(PAIR, DATA, tokens_per_pass=30, checkpoint=tmp_path, progress=wait)

        with ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(run) for _ in range(2)]:
                assert_same(each.result(), expected)
        assert not list(tmp_path.glob("unfinished*"))

    def test_a_folder_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(CoSDError, match="checkpoint="):
            observe(PAIR, DATA, checkpoint=tmp_path / "file")
