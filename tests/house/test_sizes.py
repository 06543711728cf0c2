"""Laws 2, 6 and 7: functions, rooms and notebooks stay small, tests of bad input stand in tests/hostile, and a run
notebook is glue with few parameters.

The tables hold what is still larger, with its present size. A row may only shrink: a larger one fails, and so does a
row that is no longer an exception.
"""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = sorted(p for p in (ROOT / "facesyn").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RUNS = sorted((ROOT / "nbs/runs").glob("*.ipynb"))
LINES, ARGUMENTS, ROOM, CELLS, HOSTILE, SHARE = 40, 8, 300, 60, 2, 50  # at most, of a function, a function, ...
RUN_LINES, PARAMETERS = 5, 15  # of a function of a run notebook, of a run notebook

# (lines, arguments) of functions over LINES or ARGUMENTS
FUNCTIONS = {}
ROOM_LINES = {}
NOTEBOOK_CELLS = {}
REFUSED = {}

# test text of a notebook, in per cent of its exported text
TESTS = {}

# lines of functions of run notebooks, and their parameters
RUN_FUNCTIONS = {}
RUN_PARAMETERS = {}


def name(path):
    return str(path.relative_to(ROOT))


def functions(room):
    """{name: (lines, arguments)} of the functions and methods of a room, without self

    A pipeline's `__call__` has diffusers' arguments, so its signature does not count, only what follows it; nor does
    the example of a docstring, which tests/runs/test_docs.py executes.
    """
    tree, found = ast.parse(room.read_text()), {}
    for owner in ast.walk(tree):
        for node in getattr(owner, "body", []) if not isinstance(owner, (ast.Lambda, ast.IfExp)) else []:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                where = f"{owner.name}.{node.name}" if isinstance(owner, ast.ClassDef) else node.name
                if where.endswith("Pipeline.__call__"):
                    found[where] = node.end_lineno - node.body[0].lineno + 1, 0
                else:
                    example = re.search(r"```python\n.*?```", ast.get_docstring(node) or "", re.S)
                    lines = node.end_lineno - node.lineno + 1 - (example[0].count("\n") + 2 if example else 0)
                    found[where] = lines, len(given) - (given[:1] in (["self"], ["cls"]))
    return found


def code_cells(notebook):
    "The sources of a notebook's code cells"
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


HOSTILE_CALL = re.compile(r"\b(?:refused|expect_fail)\(|else:\s+raise AssertionError")


def hostile(notebook):
    "How often a notebook feeds bad input: `refused(...)`, `expect_fail(...)`, and a try that must not succeed"
    return sum(
        len(re.findall(r"\b(?:refused|expect_fail)\(|else:\s+raise AssertionError", s)) for s in code_cells(notebook)
    )


SHOWS = re.compile(r"image_grid\(|unrolled\(|\bplt\.|\bgo\.|make_subplots|print\(|^fig$", re.M)
CHECKS = re.compile(r"\bassert\b|\b(?:refused|expect_fail)\(")


def share_of_tests(notebook):
    "Per cent: the text of cells that check and show nothing, by the exported text"
    cells = code_cells(notebook)
    exported = sum(len(s) for s in cells if "#| export" in s)
    tests = sum(len(s) for s in cells if "#| export" not in s and CHECKS.search(s) and not SHOWS.search(s))
    return round(100 * tests / exported) if exported else 0


def run_functions(notebook):
    "{name: lines} of the functions of a run notebook, those within others too"
    tree = ast.parse("\n".join(code_cells(notebook)))
    return {n.name: n.end_lineno - n.lineno + 1 for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def parameters(notebook):
    "How many names the cell of parameters sets"
    cells = json.loads(notebook.read_text())["cells"]
    cell = next(c for c in cells if "parameters" in c["metadata"].get("tags", []))
    return sum(isinstance(node, ast.Assign) for node in ast.parse("".join(cell["source"])).body)


def sizes():
    "(table, key, size, most) of everything that has a size"
    for room in ROOMS:
        key = str(room.relative_to(ROOT / "facesyn"))
        yield "ROOM_LINES", key, room.read_text().count("\n"), ROOM
        for function, size in functions(room).items():
            yield "FUNCTIONS", f"{key} {function}", size, (LINES, ARGUMENTS)
    for notebook in NOTEBOOKS:
        key = str(notebook.relative_to(ROOT / "nbs"))
        yield "NOTEBOOK_CELLS", key, len(json.loads(notebook.read_text())["cells"]), CELLS
        yield "REFUSED", key, hostile(notebook), HOSTILE
        yield "TESTS", key, share_of_tests(notebook), SHARE
    for notebook in RUNS:
        yield "RUN_PARAMETERS", notebook.stem, parameters(notebook), PARAMETERS
        for function, lines in run_functions(notebook).items():
            yield "RUN_FUNCTIONS", f"{notebook.stem} {function}", lines, RUN_LINES


TABLES = dict(FUNCTIONS=FUNCTIONS, ROOM_LINES=ROOM_LINES, NOTEBOOK_CELLS=NOTEBOOK_CELLS, REFUSED=REFUSED, TESTS=TESTS)
TABLES |= dict(RUN_FUNCTIONS=RUN_FUNCTIONS, RUN_PARAMETERS=RUN_PARAMETERS)


def exceeds(size, most):
    return any(s > m for s, m in zip(size, most)) if isinstance(size, tuple) else size > most


@pytest.mark.parametrize("table", TABLES)
def test_sizes(table):
    assert ROOMS and NOTEBOOKS and RUNS
    listed, found = TABLES[table], {key: (size, most) for t, key, size, most in sizes() if t == table}
    larger = {k: size for k, (size, most) in found.items() if exceeds(size, most) and k not in listed}
    assert not larger, f"split these, at most {next(iter(found.values()))[1]}: {larger}"
    grown = {k: found[k][0] for k in listed.keys() & found.keys() if exceeds(found[k][0], listed[k])}
    assert not grown, f"these exceptions may only shrink: {grown}"
    over = [k for k in listed if k not in found or not exceeds(*found[k])]
    assert not over, f"no exceptions any more, take them out of {table}: {over}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_no_empty_cell(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    empty = [k for k, c in enumerate(cells) if not "".join(c["source"]).strip()]
    assert not empty, f"{name(notebook)}: cells {empty} are empty"


LINK = re.compile(r"\]\(((?:\.\./)*[\w./-]+\.ipynb)(?:#[^)]*)?\)")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_links_to_notebooks_lead_somewhere(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    lost = [link for link in LINK.findall(text) if not (notebook.parent / link).is_file()]
    assert not lost, f"{name(notebook)} links to {lost}"


@pytest.mark.parametrize("floor", sorted({p.parent for p in NOTEBOOKS if re.match(r"\d\d_", p.name)}), ids=name)
def test_numbers_of_a_floor_are_unique(floor):
    numbers = [p.name[:2] for p in floor.glob("[0-9][0-9]_*.ipynb")]
    assert len(numbers) == len(set(numbers)), sorted(numbers)
