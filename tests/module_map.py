"""The README's map of the library, drawn from the imports: `python tests/module_map.py` writes it anew.

The stations, what stands in each and their order are ours to say; the arrows are the code's.
"""

import ast
import re
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "visdial_lab"
BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
# Station → its modules. A module imports only from those that stand before it.
STATIONS = {
    "ground": ["errors", "progress", "files", "platforms"],
    "course": ["exercises", "config", "course", "journal"],
    "data": ["reading", "visdial", "transfer", "download"],
    "measure": ["baselines", "submission", "text_metrics", "metrics"],
    "words": ["chat", "teacher", "generation"],
    "big model": ["api_prompt", "api_client", "api_data"],
    "model": ["models", "decoding", "inference"],
    "rank": ["forest", "decoder", "ranking", "reminding", "predictions", "export"],
    "train": ["backends", "training_data", "negatives", "contrast", "checkpoints", "finetune"],
    "show": ["plots", "diagrams", "ranking_diagrams", "views", "widgets", "api_page"],
    "whole run": ["evaluation", "report", "pipeline"],
    "grading": [
        *("grading.executor", "grading.walls", "grading.sandbox", "grading.submissions"),
        *("grading.problem_sets", "grading.scoring", "grading.release", "grading.similarity"),
        *("grading.feedback", "grading.gradebook", "grading.pile"),
    ],
    "commands": ["doctor", "cli_generate", "cli_models", "cli_grading", "cli"],
}
ORDER = [module for modules in STATIONS.values() for module in modules]


def modules() -> dict[str, Path]:
    """Every module of the library by its name within it, `grading.walls`; without __init__ and __main__."""
    paths = (path for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.startswith("__"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imports(path: Path) -> set[str]:
    """The library's modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "visdial_lab":
            module = node.module.partition(".")[2]
            found |= (
                {module} if module in ORDER else {f"{module}.{one.name}".strip(".") for one in node.names}
            )
    return found & set(ORDER)


def draw() -> str:
    """The map as Mermaid: an arrow from a station to each that imports it, unless another way leads there."""
    station = {module: name for name, inside in STATIONS.items() for module in inside}
    graph = nx.DiGraph()
    graph.add_nodes_from(STATIONS)
    for module, path in modules().items():
        ties = {(station[imported], station[module]) for imported in imports(path)}
        graph.add_edges_from(tie for tie in ties if tie[0] != tie[1])
    names = {name: name.replace(" ", "_") for name in STATIONS}
    lines = ["```mermaid", "flowchart LR"]
    for name, inside in STATIONS.items():
        shown = "<br>".join(module.removeprefix("grading.") for module in inside)
        lines.append(f'    {names[name]}["<b>{name}</b><br>{shown}"]')
    arrows = nx.transitive_reduction(graph).edges
    place = {name: number for number, name in enumerate(STATIONS)}
    for one, other in sorted(arrows, key=lambda arrow: (place[arrow[0]], place[arrow[1]])):
        lines.append(f"    {names[one]} --> {names[other]}")
    return "\n".join([*lines, "```", ""])


def backwards() -> list[str]:
    """Imports of a module that does not stand before the one that imports it."""
    place = {module: number for number, module in enumerate(ORDER)}
    ties = ((module, other) for module, path in modules().items() for other in imports(path))
    return [f"{module} imports {other}" for module, other in ties if place[other] >= place[module]]


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda _: draw(), readme.read_text(encoding="utf-8")), encoding="utf-8")
