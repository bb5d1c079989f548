"""How the methods of distillation look in a terminal of 80 columns: a list, and a page for each."""

import json
import re
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from client.tables import plain_table

FAMILIES = {
    "matching": "Matching gradients or features of real images",
    "unrolled": "Learning through unrolled training",
    "trajectory": "Matching the paths of experts",
    "recovery": "Recovering images from a teacher",
    "coresets": "Choosing real images, without learning",
}
"""Headings of the families, in the order in which they are listed. One that is not here goes by its own name."""
TELLING = ("student_steps", "max_start_epoch", "inner_iterations", "epochs_net", "distill_steps", "network",
           "squeeze_epochs", "iterations", "label_epochs", "lr_img", "factor", "n_data", "batch_real")  # fmt: skip
"""Parameters that say most about a preset, the foremost first."""
USUAL = ("cifar10", 10)
"""The preset that stands for a method's cost where there is room for one number."""


def method_list(methods: list[dict[str, Any]]) -> RenderableType:
    """All methods by family, with what they do and a hint of what they cost."""
    table = plain_table()
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column("what it does")
    table.add_column("paper", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    for family in dict.fromkeys([*FAMILIES, *(method["family"] for method in methods)]):
        members = [method for method in methods if method["family"] == family]
        if members:
            table.add_row()
            table.add_row("", Text(FAMILIES.get(family, family), style="bold underline"))
        for method in members:
            usual = [preset for preset in method["presets"] if (preset["dataset"], preset["ipc"]) == USUAL]
            cost = count_text(usual[0]["image_passes"]) if usual else ""
            table.add_row(Text(method["name"]), Text(method["summary"]), Text(venue(method["paper"])), cost)
    legend = (
        "images: about how many go through a network in all, for CIFAR-10 at 10 images per class, in millions (M) and "
        "billions (G): a rough hint of the cost."
    )
    more = "`dream methods NAME` shows one with its parameters and presets."
    return Group(table, "", Text(legend, style="dim"), Text(more, style="dim"))


def venue(paper: str) -> str:
    """Where and when a paper appeared, as `ICLR 2021`; empty where it is none."""
    last = paper.rpartition(", ")[2]
    return last if last[-4:].isdigit() else ""


def count_text(count: int) -> str:
    """A count of two digits: `none`, `50,000`, `0.5 M`, `740 M`, `1.2 G`."""
    if count < 100_000:
        return f"{count:,}" if count else "none"
    scale, unit = (1e9, "G") if count >= 999.5e6 else (1e6, "M")
    scaled = float(f"{count / scale:.2g}")
    return f"{scaled:,.1f} {unit}" if scaled < 10 else f"{scaled:,.0f} {unit}"


def method_page(method: dict[str, Any]) -> RenderableType:
    """One method with all that can be set, and what it takes by itself."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("method", Text(method["name"], style="bold"))
    facts.add_row("what it does", Text(method["summary"]))
    facts.add_row("family", Text(FAMILIES.get(method["family"]) or method["family"]))
    facts.add_row("paper", Text(method["paper"]))
    facts.add_row("defaults from", Text(method["source"]))
    facts.add_row("cost", Text(method["cost"]))
    parts: list[RenderableType] = [facts]
    for section, before in (("params", ""), ("evaluation", "evaluation.")):
        parts += ["", _heading(section, f"--set {before}NAME=VALUE"), parameters(method, section)]
    return Group(*parts, "", _heading("presets", "what is taken where nothing is set"), presets(method))


def _heading(words: str, hint: str) -> Text:
    return Text.assemble((words, "bold underline"), "  ", (hint, "dim"))


def parameters(method: dict[str, Any], section: str) -> Table:
    """What can be set, with what it is by default: several values where the default hangs on dataset and IPC."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, field in method[f"{section}_schema"]["properties"].items():
        meaning = Text(field.get("description", ""))
        if allowed := allowed_text(field):
            meaning.append(f" ({allowed})", style="dim")
        table.add_row(Text(name), default_text(method, section, name), meaning)
    return table


def default_text(method: dict[str, Any], section: str, name: str) -> Text:
    """The default; `1 or 2` where the presets know up to four values, `varies` where they know more."""
    field = method[f"{section}_schema"]["properties"][name]
    if "default" in field:
        return _breaking(value_text(field["default"]))
    values = {preset[section][name] for preset in method["presets"] if name in preset[section]}
    if not 0 < len(values) <= 4:
        return Text("varies", style="dim")
    *first, last = map(value_text, sorted(values, key=lambda value: (isinstance(value, str), value or 0, str(value))))
    return _breaking(f"{', '.join(first)} or {last}" if first else last)


def _breaking(text: str) -> Text:
    """A text whose long names may be broken after an underscore."""
    return Text("\n".join(_lines(text, 12)))


def _lines(text: str, width: int) -> list[str]:
    """Broken at spaces, and words that are too long after an underscore."""
    pieces = re.findall(r"[^\s_]*(?:_+|\s+|$)", text)
    lines = [""]
    for piece in pieces:
        if len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines if line.strip()]


def allowed_text(field: dict[str, Any]) -> str:
    """The values that a JSON Schema lets in: `1 to 8`, `> 0`, `mse, l1`; empty where the type says it all."""
    if "anyOf" in field:
        return ", or ".join(filter(None, map(allowed_text, field["anyOf"])))
    if "enum" in field:
        values = _by_prefix([value_text(value) for value in field["enum"]])
        return ", ".join(values) if len(field["enum"]) > 1 else f"only {values[0]}"
    if "const" in field:
        return value_text(field["const"])
    if field.get("type") == "null":
        return "null"
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None:
        return f"{least} to {most}" if most is not None else f"≥ {least}"
    return f"> {field['exclusiveMinimum']}" if "exclusiveMinimum" in field else ""


def _by_prefix(names: list[str]) -> list[str]:
    """Names with what stands before a colon told once: `a`, `b:{c, d}`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        before, colon, after = name.rpartition(":")
        groups.setdefault(before + colon, []).append(after)
    return [", ".join(group) if not before else f"{before}{{{', '.join(group)}}}" for before, group in groups.items()]


def value_text(value: Any) -> str:
    """A value as `--set` takes it, numbers to six digits."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def presets(method: dict[str, Any]) -> RenderableType:
    """What the method takes by itself, for every dataset and IPC, with the parameters that say most about it."""
    schema = method["params_schema"]["properties"]
    told = [
        name
        for name in TELLING
        if name in schema
        and "default" not in schema[name]
        and any(preset["params"][name] != preset["steps"] for preset in method["presets"])
    ][:3]
    table = plain_table()
    table.add_column("dataset", no_wrap=True)
    table.add_column("ipc", justify="right", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    for name in told:
        table.add_column("\n".join(_lines(name, 10)), justify="right", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("published", no_wrap=True)
    for preset in method["presets"]:
        values = [escape(value_text(preset["params"][name])) for name in told]
        published = Text("yes", style="green") if preset["published"] else Text("no", style="dim")
        cost = count_text(preset["image_passes"])
        table.add_row(escape(preset["dataset"]), str(preset["ipc"]), f"{preset['steps']:,}", *values, cost, published)
    legend = (
        "images: about how many go through a network in all, in millions (M) and billions (G). "
        f"All values of a preset: `dream methods {method['name']} --json`."
    )
    return Group(table, "", Text(legend, style="dim"))
