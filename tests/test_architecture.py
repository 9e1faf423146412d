"""The house: rooms import from rooms above, and what must not be in the library is not in it."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import minilm

PACKAGE = Path(minilm.__file__).parent
ROOMS = [
    *("kernels", "files", "tensor", "reference", "attention", "recurrent", "functional"),
    *("nn", "models", "tokenizers"),
    *(
        "objectives",
        "optim",
        "data",
        "metrics",
        "metrics_text",
        "metrics_generation",
        "tasks",
        "checkpoint",
        "training",
        "finetuning",
        "logits",
        "beam",
        "prefill",
        "generation",
        "pretrained",
    ),
    *("pipelines", "__main__"),
]
RUN_TIME = {"numpy", "regex", "minilm"} | set(sys.stdlib_module_names)


def module_name(path: Path, package: Path) -> str:
    """minilm/nn/layers.py is minilm.nn.layers, minilm/nn/__init__.py is minilm.nn."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources(package: Path) -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    return {module_name(p, package): ast.parse(p.read_text()) for p in package.rglob("*.py")}


def imports(name: str, tree: ast.Module, modules: set[str], top: bool = False) -> Iterator[str]:
    """The modules that a module imports; with `top`, only where importing it imports them."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if top and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: write the import out in full"
            assert node.module
            for alias in node.names:  # `from minilm import kernels` imports a module of minilm
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module


def room(module: str) -> str:
    """minilm.nn.layers is in nn."""
    return (module.split(".") + [""])[1]


def broken_rules(package: Path) -> list[str]:
    """What is wrong with the imports of a package."""
    trees = sources(package)
    wrong = []
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        if room(name) and room(name) not in ROOMS:
            wrong.append(f"{name} stands in no room of the house")
            continue
        inner = {i for i in imports(name, tree, set(trees)) if i.split(".")[0] == package.name}
        graph[name] = inner - {name}
        for other in graph[name] if room(name) else ():
            if not room(other) or ROOMS.index(room(other)) > ROOMS.index(room(name)):
                wrong.append(f"{name} imports {other}, which stands below it")
        for other in imports(name, tree, set(trees), top=True):
            if other.split(".")[0] not in RUN_TIME | {package.name}:
                wrong.append(f"{name} imports {other}: import an extra where it is used")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append("a circle: " + " -> ".join(error.args[1]))
    return wrong


def test_rooms_import_only_from_rooms_above_and_nothing_but_numpy_and_regex():
    assert broken_rules(PACKAGE) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tensor.py": "from minilm.functional import gelu"}, "tensor imports minilm.functional"),
        ({"kernels.py": "def f():\n    import minilm.optim"}, "kernels imports minilm.optim"),
        ({"nn/layers.py": "from minilm import training"}, "imports minilm.training"),
        ({"optim.py": "import minilm"}, "minilm.optim imports minilm, which"),
        ({"optim.py": "import torch"}, "optim imports torch"),
        ({"optim.py": "if True:\n    from scipy.special import erf"}, "imports scipy.special"),
        ({"helpers.py": ""}, "helpers stands in no room"),
        (
            {"nn/a.py": "from minilm.nn import b", "nn/b.py": "from minilm.nn.a import A"},
            "a circle: ",
        ),
    ],
)
def test_a_house_that_breaks_a_rule_is_noticed(tmp_path, files, message):
    package = tmp_path / "minilm"
    (package / "nn").mkdir(parents=True)
    for name in ("__init__", *ROOMS, "nn/__init__"):
        (package / f"{name}.py").write_text("")
    (package / "nn.py").unlink()
    (package / "generation.py").write_text(
        "import numpy.linalg\nfrom minilm import tensor\ndef f():\n    import torch\n"
    )
    assert broken_rules(package) == []
    sources.cache_clear()
    for name, text in files.items():
        (package / name).write_text(text)
    assert any(message in rule for rule in broken_rules(package)), broken_rules(package)


def test_the_twins_do_not_know_each_other():
    trees = sources(PACKAGE)
    for one, other in (("functional", "reference"), ("reference", "functional")):
        found = imports(f"minilm.{one}", trees[f"minilm.{one}"], set(trees))
        assert f"minilm.{other}" not in set(found)


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_the_library_never_prints():
    for name, tree in sources(PACKAGE).items():
        for call in calls(tree):
            is_print = isinstance(call.func, ast.Name) and call.func.id == "print"
            assert not is_print, f"{name}, line {call.lineno}: use logging"


def test_nothing_is_pickled():
    for name, tree in sources(PACKAGE).items():
        roots = {module.split(".")[0] for module in imports(name, tree, set())}
        assert not roots & {"pickle", "shelve", "marshal", "dill", "joblib"}, name
        for call in calls(tree):
            for keyword in call.keywords:
                allows = keyword.arg == "allow_pickle" and getattr(keyword.value, "value", 1)
                assert not allows, f"{name}, line {call.lineno}: allow_pickle"


def test_randomness_comes_from_generators_only():
    for name, tree in sources(PACKAGE).items():
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text.startswith("np.random."):
                function = text.split(".")[2]
                is_new = function.endswith("Generator") or function in ("default_rng", "PCG64")
                assert is_new, f"{name}, line {node.lineno}: {text} draws from a global state"


def test_every_public_function_and_class_says_what_it_is():
    for name, tree in sources(PACKAGE).items():
        assert ast.get_docstring(tree) or not tree.body, f"{name} has no docstring"
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"
