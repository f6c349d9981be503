"""The command line: one file per command. Only the files of this package print or exit."""

from cosd_core.cli.interrupts import quiet_interrupts

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process; it ends by ``SystemExit``."""
    with quiet_interrupts():
        from cosd_core.cli.app import run
    run()
