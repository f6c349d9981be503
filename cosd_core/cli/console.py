"""The consoles that commands print on."""

from rich.console import Console

out, err = Console(highlight=False), Console(stderr=True, highlight=False)
