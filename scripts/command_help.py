"""The commands' own help as Markdown: cog puts it into the README, and `make check` holds it equal."""

from __future__ import annotations

from collections.abc import Iterator

import click

from facetpu.cli import main

WIDTH = 100


def markdown() -> str:
    """A heading and the help text of every command, in pipeline order."""
    return "\n".join(_sections(main, "facetpu"))


def _sections(group: click.Group, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _sections(command, f"{path} {name} MODEL")
            continue
        usage = f"{path} {name}"
        context = click.Context(
            command, info_name=usage, max_content_width=WIDTH, terminal_width=WIDTH, **main.context_settings
        )
        title = usage.replace("facetpu ", "").replace(" MODEL", "")
        yield f"### {title}\n\n```\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    print(markdown())
