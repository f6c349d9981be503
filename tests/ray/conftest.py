"""Ray for these tests: skipped where it is missing, without reports of its use."""

import os

import pytest

pytest.importorskip("ray", reason="make test-ray installs Ray")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
