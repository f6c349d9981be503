"""Ray sends no reports of its use."""

import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
