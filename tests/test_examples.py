"""Every example runs, offline, and says what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMISES = {
    "two_models.py": ["together:    iron is 26, 26+7=33", "became '3'", "37+8=45", "France is Paris"],
    "langchain_chain.py": [
        "Paris has 5, 5+4=9",
        "12 of 12 questions",
        "uranium is 92, 92+2=94",
        "The assistant wrote",
    ],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_the_example_says_what_it_promises(name: str) -> None:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    for words in PROMISES[name]:
        assert words in run.stdout
