"""The list of commands in `kbroker --help`, by what they are for."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

GROUPS = {
    "Run tasks": ("run", "demo", "render"),
    "See and end what runs": ("ps", "describe", "logs", "cancel", "dead"),
    "Serve a cluster": ("launcher", "watcher"),
    "Set up": ("config", "local", "airflow"),
    "Test": ("soak", "bench"),
}


class GroupedCommands(TyperGroup):
    """Lists its commands under the headings of `GROUPS`, others under "More"."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        known = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in known)
        width = max(len(name) for name in self.commands)
        for title, names in {**GROUPS, "More": others}.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    short = command.get_short_help_str(formatter.width - 6 - width)
                    rows.append((name.ljust(width), short))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
