"""``python -m cosd_core``: the command line."""

from cosd_core.cli import main

main()
