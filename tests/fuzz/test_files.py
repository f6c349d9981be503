"""Files of arbitrary content: settings, trees, tasks, training data, answers, predictions, generations."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from cosd_core import TreeVerifier
from cosd_core.decoder import CoSDDecoder
from cosd_core.demo import load_pair
from cosd_core.evaluation import Answer, AnswerFile, read_task
from cosd_core.explain.answers import as_generation
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import read_settings
from cosd_core.training.examples import read_examples
from cosd_core.tuning.prediction_log import PredictionLog
from tests.fuzz.survival import fuzzed, survive
from tests.fuzz.values import files

SETTINGS = {
    "draft_model": "a", "assistant_model": ["b"], "verifier": {"name": "rule", "alpha": 0.5, "beta": 0.5},
    "schedule": "adaptive", "draft_length": 4, "calibration": [1.0, 2.0], "stop": ["x"], "seed": 1,
    "top_p": 0.5, "grammar": {"type": "object"}, "chat_template_kwargs": {"a": 1}, "eos_token_id": [3],
    "dtype": "float32", "device_map": {"": 0}, "quantization_config": {"load_in_4bit": True},
    "tree_path": "t.json", "timeout": 3.0,
}  # fmt: skip
TREE = {
    "format": "cosd-tree", "version": 1, "features": ["p", "q"],
    "nodes": [
        {"feature": "q", "threshold": 0.83, "left": 1, "right": 2}, {"replace": False},
        {"feature": "p", "threshold": 0.3, "left": 3, "right": 4}, {"replace": True}, {"replace": False},
    ],
    "about": {"pair": ["a", "b"], "calibration": [1.0, 1.5]},
}  # fmt: skip
TASK = (
    "task", "sums", "scoring", "name", "numeric", "tolerance", "max_new_tokens", "stop", "Q", "prompt",
    "1+1?", "answer", "completion", "2", "prompt", "Which?", "answer", "Rome", "C", "choices", "Rome",
    "Oslo", "scoring", "choice", "group", "c", "prompt", "role", "user", "content", "Hello", "answer",
    "Hi", "scoring", "name", "regex", "pattern", "(a)",
)  # fmt: skip
TRAINING = (
    {"prompt": "1+1=", "completion": "2"},
    {"prompt": [1, 2], "completion": [3]},
    {"text": "1+1=2"},
    {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hi"}]},
)
ANSWERS = tuple(
    asdict(Answer(key, "rule", "sums", "2", "stop", 1, 1, 2, 1, 2, 1, 0.5, "2024")) for key in ("a", "b")
)
PREDICTIONS = (
    {"key": "a", "tokens": [5, 6], "ending": ["ab", "stop"], "predictions": [[0, [5, 7], [[0.5], [0.25]]]]},
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


@fuzzed
@given(content=files(SETTINGS))
def test_settings(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    read = survive(lambda: read_settings(file))
    if read is not None:
        made = survive(lambda: Settings(**{"draft_model": "a", "assistant_model": "b", **read}))
        if made is not None:
            survive(lambda: (made.method(), made.model_name, made.generation_options(), made.loading_options))


@fuzzed
@given(content=files(TREE))
def test_trees(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    tree = survive(lambda: TreeVerifier.load(file))
    if tree is not None:
        survive(lambda: (tree.explain(), tree.regions, tree.simplified().to_dict(), tree.calibration))
        assert all(tree.can_replace(p) or not tree.replaces(p, q) for p in (0, 0.3, 1) for q in (0, 0.9, 1))


@fuzzed
@given(content=files(*TASK))
def test_tasks(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    task = survive(lambda: read_task(file))
    for item in task.items if task else ():
        survive(lambda item=item: (item.identity, item.is_right("(a) 2")))


@fuzzed
@given(content=files(*TRAINING))
def test_training_data(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    survive(lambda: list(read_examples(file)))


@fuzzed
@given(content=files(*ANSWERS))
def test_answers(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    survive(lambda: len(AnswerFile(file)))


@fuzzed
@given(content=files(*PREDICTIONS))
def test_predictions(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    survive(lambda: PredictionLog(file))


SAVED: dict[str, Any] = CoSDDecoder(*load_pair()).generate("Q: 3+4? A:", max_new_tokens=6).to_dict()


@fuzzed
@given(content=files(SAVED))
def test_saved_generations(content: bytes) -> None:
    generation = survive(lambda: as_generation(content))
    if generation is not None:
        survive(lambda: (generation.to_dict(), generation._repr_html_()))
