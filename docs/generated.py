"""What the documentation takes from the code: settings, assets, tables, commands, and pages of the root folder.

MkDocs calls the functions whose names begin with `on_`. A page asks for text by a line `<!-- generated: NAME -->`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import click
import networkx as nx
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from idal_assets.cli import main
from idal_assets.profile import profile_schema
from idal_assets.store.database import TABLES
from idal_assets.study.graph import GRAPH, SOURCES, Node

DOCS = Path(__file__).parent
ROOT = DOCS.parent
FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
    "idal_assets/report/example.png": "example.png",
}
"""Files that are pages or pictures of the site, by their path in the project, with that in the site."""

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the drawing of the graph, and what lies outside the folder of the documentation."""
    files.append(File.generated(config, "graph.svg", content=graph_drawing()))
    for source, target in FROM_ROOT.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what a page asks for, and makes links between root and docs folder links within the site."""
    if page.file.src_uri in FROM_ROOT.values():
        for source, target in FROM_ROOT.items():
            markdown = markdown.replace(f"]({source})", f"]({target})")
        markdown = markdown.replace("](docs/", "](")
    markdown = markdown.replace("](../", "](")
    return MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses a page that would fetch something from the network, which a reader may not have."""
    fetched = re.findall(r'(?:<script|<img|<link|<iframe)[^>]*(?:src|href)="?(https?://[^"> ]+)', output)
    if fetched:
        raise PluginError(f"{page.file.src_uri} would fetch {', '.join(fetched)}; put the file into docs/")
    return output


# --- settings ---


def settings_text() -> str:
    """Every section of a profile with its settings, types, defaults and meanings."""
    schema = profile_schema()
    own = {name: part for name, part in schema["properties"].items() if not _section_of(part, schema)}
    parts = [_settings_table(own, schema, "Of the profile itself:")]
    for name, part in schema["properties"].items():
        if section := _section_of(part, schema):
            table = _settings_table(section["properties"], schema, section["description"])
            parts.append(f"### {name}\n\n{table}")
    return "\n\n".join(parts)


def _section_of(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a setting is, if it is one."""
    choices = [part, *part.get("anyOf", [])]
    (found,) = [choice["$ref"] for choice in choices if "$ref" in choice] or [None]
    return schema["$defs"][found.removeprefix("#/$defs/")] if found else None


def _settings_table(properties: Mapping[str, Any], schema: Mapping[str, Any], says: str) -> str:
    rows = []
    for name, part in properties.items():
        inner = _section_of(part, schema)
        kind = "as [baseline](#baseline)" if inner else _type_in_words(part)
        default = f"`{_as_yaml(part['default'])}`" if "default" in part and not inner else ""
        rows.append((f"`{name}`", kind, default, part.get("description", "")))
    return f"{says}\n\n{_table(('setting', 'type', 'default', 'meaning'), rows)}"


LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _type_in_words(part: Mapping[str, Any]) -> str:
    """The type of a setting with its range, such as "whole number, at least 1"."""
    if "anyOf" in part:
        return ", or ".join(_type_in_words(choice) for choice in part["anyOf"])
    if "enum" in part:
        return " or ".join(f"`{choice}`" for choice in part["enum"])
    kind = part.get("type")
    if kind == "array":
        if "prefixItems" in part:
            return f"{len(part['prefixItems'])} × {_type_in_words(part['prefixItems'][0])}"
        return f"list of: {_type_in_words(part['items'])}"
    if kind == "object":
        of_each = part.get("additionalProperties", True)
        return "values by name" if of_each is True else f"by name: {_type_in_words(of_each)}"
    name = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    said = [f"{word} {part[limit]:g}" for limit, word in LIMITS.items() if limit in part]
    return ", ".join([name.get(str(kind), str(kind)), *([" and ".join(said)] if said else [])])


# --- assets ---


def assets_text() -> str:
    """Every asset by its part of the experiment, as its row of the graph says."""
    groups: dict[str, list[Node]] = {}
    for node in GRAPH.values():
        groups.setdefault(node.group, []).append(node)
    return "\n\n".join(_group_text(name, nodes) for name, nodes in groups.items())


def _group_text(name: str, nodes: Sequence[Node]) -> str:
    # an asset may have the name of its part
    head = f"## {name.replace('_', ' ').capitalize()} {{#part-{name}}}"
    return "\n\n".join([head, *(_asset_text(node) for node in nodes)])


def _asset_text(node: Node) -> str:
    made_from = [f"[{name}](#{name})" if name in GRAPH else name for name in node.made_from]
    facts = {
        "one for each": (node.partition or "").replace("_", " "),
        "made from": ", ".join(made_from),
        "settings": ", ".join(_setting_link(path) for path in node.settings),
        "tables": ", ".join(f"[{table}](tables.md#{table})" for table in node.tables),
        "check": node.check.says if node.check else "",
        "trains or segments": "yes" if node.accelerated else "",
    }
    lines = [f"- {name}: {fact}" for name, fact in facts.items() if fact]
    return "\n".join([f"### {node.name}", "", node.says, "", *lines])


def _setting_link(path: str) -> str:
    section = path.partition(".")[0]
    anchor = section if section not in ("name", "description", "seed", "raw") else "all-settings"
    return f"[{path}](settings.md#{anchor})"


WIDTH, ROW, BOX = 960, 58, (150, 30)
"""The drawing's width, the distance of its rows, and the size of a box, in pixels."""

COLOURS = (
    *("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f"),
    *("#d55e00", "#8c6d31", "#44617b", "#332288", "#882255"),
)
"""Borders of boxes, by group in order of the experiment."""


def graph_drawing() -> str:
    """The graph from top to bottom as SVG, without edges that follow from others."""
    edges = [(above, node.name) for node in GRAPH.values() for above in node.made_from if above not in SOURCES]
    graph = nx.transitive_reduction(nx.DiGraph(edges))
    places = _places(graph)
    groups = list(dict.fromkeys(node.group for node in GRAPH.values()))
    colours = {name: COLOURS[groups.index(node.group) % len(COLOURS)] for name, node in GRAPH.items()}
    height = max(y for _, y in places.values()) + ROW
    lines = [_edge_drawing(places[above], places[below]) for above, below in sorted(graph.edges)]
    boxes = [_box_drawing(name, place, colours[name]) for name, place in places.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _places(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Centre of each box: a row for each step from the start, in it by the mean place of what it is made from."""
    places: dict[str, tuple[float, float]] = {}
    for number, layer in enumerate(nx.topological_generations(graph)):
        wanted = {name: _mean([places[above][0] for above in graph.predecessors(name)]) for name in layer}
        ordered = sorted(layer, key=lambda name: (wanted[name], name))
        for place, name in enumerate(ordered):
            places[name] = (WIDTH * (place + 0.5) / len(ordered), ROW * (number + 0.75))
    return places


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else WIDTH / 2


def _edge_drawing(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = (start[0], start[1] + BOX[1] / 2), (end[0], end[1] - BOX[1] / 2)
    bend = (y2 - y1) / 2
    path = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    return f'<path d="{path}" fill="none" stroke="#98a2ad"/>'


def _box_drawing(name: str, centre: tuple[float, float], colour: str) -> str:
    x, y = centre[0] - BOX[0] / 2, centre[1] - BOX[1] / 2
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="5" fill="white" stroke="{colour}" '
        f'stroke-width="2"/><text x="{centre[0]:.0f}" y="{centre[1] + 4:.0f}" text-anchor="middle" font-size="12" '
        f'fill="#1d2733">{escape(name)}</text>'
    )


# --- tables ---


def tables_text() -> str:
    """Every table with its columns, types and meanings."""
    described = yaml.safe_load((DOCS / "tables.yaml").read_text(encoding="utf-8"))
    return "\n\n".join(_table_text(name, described) for name in TABLES)


def _table_text(name: str, described: Mapping[str, Any]) -> str:
    says = described["tables"][name]
    own = {**described["columns"], **says.get("columns", {})}
    filled_by = [f"[{node.name}](assets.md#{node.name})" for node in GRAPH.values() if name in node.tables]
    schema = TABLES[name]
    rows = [(f"`{column}`", kind, _column_text(column, own)) for column, kind in schema.columns.items()]
    empty = " It may be empty." if schema.may_be_empty else ""
    head = f"{says['says']} From {', '.join(filled_by)}.{empty}"
    return f"### {name}\n\n{head}\n\n{_table(('column', 'type', 'meaning'), rows)}"


def _column_text(column: str, described: Mapping[str, str]) -> str:
    if column.endswith("_version") and column not in described:
        return f"version of the {column.removesuffix('_version').replace('_', ' ')} that the row is from"
    return described[column]


# --- commands ---


def commands_text() -> str:
    """The help of each command, as `--help` shows it."""
    group = click.Context(main, info_name="idal")
    return "\n\n".join(_command_text(name, main.get_command(group, name), group) for name in main.commands)


def _command_text(name: str, command: click.Command | None, group: click.Context) -> str:
    assert command is not None
    shown = command.get_help(click.Context(command, info_name=name, parent=group, terminal_width=100))
    return f"## idal {name}\n\n```text\n{shown}\n```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


GENERATED: Mapping[str, Callable[[], str]] = {
    "settings": settings_text,
    "assets": assets_text,
    "tables": tables_text,
    "commands": commands_text,
}
"""What a page may ask for."""
