"""The arguments of ``serve run cosd_core.serving.ray:app``, which are read without Ray."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from cosd_core import utils
from cosd_core.errors import CoSDError, EvaluationFileError, InvalidOptionError, MissingExtraError
from cosd_core.serving.ray import app, read_arguments


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSD_API_KEY", raising=False)


def test_texts_become_values_of_their_options() -> None:
    settings, options, replicas = read_arguments(
        {
            "draft_model": "org/a", "assistant_model": '["org/b", "org/c"]', "alpha": "0.7",
            "revision": "123",
            "deterministic": "true", "calibration": "[1, 2, 2]", "stop": "Q:", "name": "7",
            "api_keys": "one two",
            "max_tokens_limit": "9", "max_replicas": "4", "num_gpus": "0.5",
        }
    )  # fmt: skip
    assert settings == {
        "draft_model": "org/a", "assistant_model": ["org/b", "org/c"], "alpha": 0.7, "revision": "123",
        "deterministic": True, "calibration": [1, 2, 2], "stop": "Q:",
    }  # fmt: skip
    assert [key.get_secret_value() for key in options.api_keys] == ["one", "two"]
    assert (options.name, options.max_tokens_limit) == ("7", 9)
    assert replicas.deployment() == {
        "autoscaling_config": {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 32.0},
        "ray_actor_options": {"num_cpus": 1.0, "num_gpus": 0.5},
    }


def test_arguments_go_before_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"draft_model": "org/a", "alpha": 0.3, "beta": 0.4}), encoding="utf-8")
    settings, _, _ = read_arguments({"settings_file": str(file), "alpha": "0.9"})
    assert settings == {"draft_model": "org/a", "alpha": 0.9, "beta": 0.4}


def test_keys_come_from_the_environment_unless_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSD_API_KEY", "a b")
    for given, keys in (({}, ["a", "b"]), ({"api_keys": "c"}, ["c"]), ({"api_keys": ["d", "e"]}, ["d", "e"])):
        _, options, _ = read_arguments(given)
        assert [key.get_secret_value() for key in options.api_keys] == keys


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alfa": "0.5"}, "unknown option 'alfa': did you mean 'alpha'?"),
        ({"port": "80"}, "port='80' is an option of Ray Serve's proxy"),
        ({"alpha": "half"}, "alpha='half' should be JSON"),
        ({"api_keys": 5}, "api_keys"),
        ({"min_replicas": "2"}, "min_replicas=2 is more than max_replicas=1"),
        ({"num_gpus": "-1"}, "num_gpus=-1"),
        ({"max_body_bytes": "0"}, "max_body_bytes=0"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOptionError) as error:
        read_arguments(arguments)
    assert words in str(error.value)


def test_a_settings_file_cannot_permit_code(tmp_path: Path) -> None:
    (tmp_path / "tuned.json").write_text('{"trust_remote_code": true}', encoding="utf-8")
    with pytest.raises(EvaluationFileError, match="trust_remote_code"):
        read_arguments({"settings_file": str(tmp_path / "tuned.json")})


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(utils, "version", missing)
    with pytest.raises(MissingExtraError, match=r'pip install "cosd\[ray\]"'):
        app({})
    assert issubclass(MissingExtraError, CoSDError)
