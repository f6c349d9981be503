"""What all tests share: one thread (tiny models are slower on two), no network, small models made here."""

import gc
import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COSD_CACHE_DIR"] = ""  # no files outside the folders of tests
os.environ["OMP_NUM_THREADS"] = "1"  # also of programs that tests start
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("COLUMNS", None)  # where tests run side by side it is set, and the tests set it themselves

import pytest
import torch

from cosd_core import LanguageModel
from tests.models import random_model

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def frozen_imports() -> Iterator[None]:
    """Python's collector passes over the hundreds of thousands of objects that imports made.

    It runs after every ``unload``, which would look at all of them each time.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def draft() -> LanguageModel:
    """A random model in float64, sharp enough that it is sometimes sure."""
    return random_model(seed=0)


@pytest.fixture(scope="session")
def assistant() -> LanguageModel:
    """Another one."""
    return random_model(seed=1)


@pytest.fixture(scope="session")
def second_assistant() -> LanguageModel:
    """A third one."""
    return random_model(seed=2)
