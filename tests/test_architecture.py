"""The rules of ARCHITECTURE.md, read off the source."""

import ast
import functools
import inspect
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sourcesep

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sourcesep"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400
HEAVY = {
    "torch",
    "torchaudio",
    "mne",
    "librosa",
    "sklearn",
    "matplotlib",
    "pandas",
    "numba",
    "jinja2",
}

# Names at the top of the package, in the order in which a signal flows. Each may import from
# earlier rows, and from within itself.
LAYERS = (
    ("__init__", "_version", "dates", "exceptions", "messages"),
    ("checks",),
    ("metrics", "output", "windows"),
    ("samples",),
    ("clipping",),
    ("recording",),
    ("reading",),
    ("adapters", "contracts", "forecast", "simulate", "spec"),
    ("labels",),
    ("factors",),
    ("auxiliary",),
    ("ivae",),
    ("components",),
    ("misfit", "modulation", "wording"),
    ("evidence", "gains", "noise_check"),
    ("judged",),
    ("verdict",),
    ("rivalry",),
    ("n_components",),
    ("componentwise", "selection"),
    ("rows",),
    ("adaptation", "latents"),
    ("estimator",),
    ("persistence",),
    ("clean_recordings", "reuse", "source_priors"),
    ("prior_training",),
    ("report",),
    ("component_analysis",),
    ("traits",),
    ("matching",),
    ("result",),
    ("separation",),
    ("lending",),
    ("cluster",),
    ("workers",),
    ("batch", "demo", "evaluation", "joint"),
    ("cli",),
    ("__main__",),
)
LAYER = {name: row for row, names in enumerate(LAYERS) for name in names}

# Who may import sourcesep's adapters, and which names; the others get theirs from `read`.
ADAPTER_USERS = {"demo", "evaluation", "report"}
CLI_MAY_IMPORT = {
    "_version",
    "auxiliary",
    "batch",
    "cli",
    "demo",
    "evaluation",
    "component_analysis",
    "exceptions",
    "forecast",
    "joint",
    "matching",
    "output",
    "persistence",
    "prior_training",
    "reuse",
    "separation",
}
# Folders of `ivae`, what families are made of; each may import from earlier ones.
PARTS = ("matrices", "chains", "stft", "flows", "vae")
IVAE_MAY_NOT_IMPORT = {"mne", "soundfile", "click", "pandas", "pyarrow", "csv", "pathlib", "io"}


def top(path: Path) -> str:
    """Return the name at the top of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Return all nodes of a file's syntax tree, the module first."""
    return tuple(ast.walk(ast.parse(source)))


def for_types_only(source: str) -> set[ast.AST]:
    """Return every node below `if TYPE_CHECKING`, which is never run."""
    return {
        inner
        for node in nodes(source)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body
        for inner in ast.walk(child)
    }


def imports(source: str) -> Iterator[str]:
    """Yield what a file imports as dotted names, wherever in the file it does."""
    unused = for_types_only(source)
    for node in nodes(source):
        if node in unused:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(source: str) -> set[str]:
    """Return the names at the top of the package that a file imports from."""
    names = (name.split(".") for name in imports(source))
    return {parts[1] for parts in names if parts[0] == "sourcesep" and len(parts) > 1}


def outside(source: str) -> set[str]:
    """Return the other packages that a file imports from."""
    return {name.split(".")[0] for name in imports(source)} - {"sourcesep"}


def breaks_layers(name: str, source: str) -> list[str]:
    """Return what `name` imports from rows that are not above its own."""
    return sorted(
        other for other in within(source) if other != name and LAYER[other] >= LAYER[name]
    )


def random_state_misuse(source: str) -> list[str]:
    """Return uses of a generator that everybody shares, or of one without a seed."""
    found = []
    generators = {"default_rng", "Generator", "BitGenerator", "SeedSequence", "PCG64"}
    for node in nodes(source):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            match = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", text)
            if match and match[1] not in generators:
                found.append(text)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.endswith("default_rng") and not (node.args or node.keywords):
                found.append(f"{name}()")
    modules = {name.rpartition(".")[0] or name for name in imports(source)}
    found += sorted(modules & {"random", "numpy.random"})
    return found


def calls(source: str, name: str) -> int:
    """Count the calls of a builtin."""
    return sum(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
        for node in nodes(source)
    )


def has_asserts(source: str) -> bool:
    """Whether users' errors might be left to `assert`."""
    return any(isinstance(node, ast.Assert) for node in nodes(source))


def paths_outside(text: str) -> list[str]:
    """Return what looks like a place on somebody's disk, or above the repository."""
    return re.findall(
        r"(?<![\w.}])(?:/(?:home|work|tmp|usr|opt|root|etc|var|mnt|media|Users)/\S*|~/\S*|\.\./\S*)",
        text,
    )


def defines_something(tree: ast.Module) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in tree.body)


def broken(rule: Callable[[str], Any]) -> dict[str, Any]:
    """Return what a rule finds in the sources of the package, by file."""
    found = {str(p.relative_to(PACKAGE)): rule(p.read_text("utf-8")) for p in FILES}
    return {name: what for name, what in found.items() if what}


# Who imports whom


def test_every_name_of_the_package_has_its_layer() -> None:
    assert {top(path) for path in FILES} == set(LAYER)


def test_a_file_imports_from_earlier_layers_only() -> None:
    found = {str(p): breaks_layers(top(p), p.read_text("utf-8")) for p in FILES}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_layer_rule_can_fail() -> None:
    assert breaks_layers("reading", "from sourcesep.separation import separate") == ["separation"]
    assert breaks_layers("ivae", "def f():\n    from sourcesep import estimator") == ["estimator"]
    assert breaks_layers("spec", "import sourcesep.adapters.audio") == ["adapters"]
    typed = "if TYPE_CHECKING:\n    from sourcesep.estimator import IVAE"
    assert breaks_layers("recording", typed) == []


def test_adapters_know_no_model() -> None:
    for path in PACKAGE.glob("adapters/*.py"):
        forbidden = {
            "ivae",
            "estimator",
            "result",
            "separation",
            "selection",
            "verdict",
            "persistence",
        }
        assert not within(path.read_text("utf-8")) & forbidden, path.name


def test_models_know_no_file() -> None:
    allowed = {"auxiliary", "checks", "exceptions", "ivae", "windows"}
    for path in PACKAGE.glob("ivae/**/*.py"):
        source = path.read_text("utf-8")
        assert within(source) <= allowed, path.name
        assert not outside(source) & IVAE_MAY_NOT_IMPORT, path.name
        assert calls(source, "open") == 0, path.name


def breaks_parts(folder: str, source: str) -> list[str]:
    """Return what a file in a folder of `ivae` imports from later folders."""
    later = PARTS[PARTS.index(folder) + 1 :]
    return sorted(
        n for n in imports(source) if n.startswith(tuple(f"sourcesep.ivae.{p}." for p in later))
    )


def test_parts_of_families_import_from_earlier_parts_only() -> None:
    assert {path.parent.name for path in PACKAGE.glob("ivae/*/*.py")} == set(PARTS)
    for path in PACKAGE.glob("ivae/*/*.py"):
        assert breaks_parts(path.parent.name, path.read_text("utf-8")) == [], path.name
    assert breaks_parts("chains", "from sourcesep.ivae.vae.fit import fit_networks")


def test_only_what_writes_results_of_its_own_imports_adapters_by_name() -> None:
    users = {top(p) for p in FILES if "adapters" in within(p.read_text("utf-8"))}
    assert users - {"adapters"} <= ADAPTER_USERS


def test_the_command_line_calls_the_public_api_only() -> None:
    for path in PACKAGE.glob("cli/*.py"):
        source = path.read_text("utf-8")
        assert within(source) <= CLI_MAY_IMPORT, path.name
        assert not outside(source) & {"numpy", "scipy", "mne", "soundfile", "sklearn"}, path.name
        assert not re.search(r"from sourcesep[.\w]* import [^\n]*\b_[a-z]", source), path.name


# What is in a file


def test_no_random_choice_outside_a_passed_generator() -> None:
    assert broken(random_state_misuse) == {}


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.seed(0)",
        "import numpy as np\nx = np.random.randn(3)",
        "import numpy as np\nrng = np.random.default_rng()",
        "import random",
        "from random import choice",
        "from numpy.random import rand",
    ],
)
def test_the_random_rule_can_fail(source: str) -> None:
    assert random_state_misuse(source)


def test_a_seeded_generator_is_no_misuse() -> None:
    source = "import numpy as np\ndef f(r: np.random.Generator): np.random.default_rng(r)"
    assert random_state_misuse(source) == []


def test_no_print_no_exit_and_no_assert() -> None:
    assert broken(lambda source: calls(source, "print")) == {}
    assert broken(has_asserts) == {}
    exits = broken(lambda source: "sys.exit" in source)
    assert [name for name in exits if not name.startswith("cli/")] == []


@functools.cache
def offered(source: str) -> set[str]:
    """Return the names in a module's `__all__`."""
    return {
        name
        for node in nodes(source)
        if isinstance(node, ast.Assign | ast.AugAssign)
        and ast.unparse(node).startswith("__all__ ")
        and isinstance(node.value, ast.List)
        for name in ast.literal_eval(node.value)
    }


def lacks(source: str) -> list[str]:
    """Return what a module does not say of itself: what it is, what it offers."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else ["docstring"]
    return found + ([] if not defines_something(tree) or offered(source) else ["__all__"])


def takes_unoffered(source: str) -> list[str]:
    """Return what a module imports from others that do not offer it."""
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}
    taken = (name.rpartition(".") for name in imports(source))
    return [
        f"{module}.{name}"
        for module, _, name in taken
        if module in modules
        and not name.startswith("__")
        and name not in offered(modules[module].read_text("utf-8"))
    ]


def test_every_module_says_what_it_is_and_what_it_offers() -> None:
    assert broken(lacks) == {}


def test_that_rule_can_fail() -> None:
    assert lacks("def f(): pass") == ["docstring", "__all__"]


def test_a_module_takes_from_others_what_they_offer() -> None:
    assert broken(takes_unoffered) == {}
    unoffered = "from sourcesep.checks import Iterable, whole"
    assert takes_unoffered(unoffered) == ["sourcesep.checks.Iterable"]


def test_no_file_is_too_long() -> None:
    folders = ("sourcesep", "benchmarks", "recipes")
    paths = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]
    assert [p for p in paths if len(p.read_text("utf-8").splitlines()) > MOST_LINES] == []


def runs_what_it_reads(source: str) -> list[str]:
    """Return what could run code from a file: pickle in all its forms, and eval."""
    never = {"pickle", "marshal", "shelve", "dill"}
    found = [name for name in imports(source) if name.split(".")[0] in never]
    for node in nodes(source):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allowed = {k.arg: ast.unparse(k.value) for k in node.keywords}
            is_load = name in ("np.load", "numpy.load")
            if name in ("eval", "exec", "torch.load", "joblib.load", "pandas.read_pickle"):
                found.append(name)
            elif is_load and allowed.get("allow_pickle") != "False":
                found.append(f"{name} without allow_pickle=False")
    return found


def test_no_file_that_is_read_can_run_code() -> None:
    assert broken(runs_what_it_reads) == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import torch\ntorch.load(path)",
        "eval(text)",
    ],
)
def test_the_rule_about_code_can_fail(source: str) -> None:
    assert runs_what_it_reads(source)


def test_nothing_in_the_package_names_a_place_outside() -> None:
    assert broken(paths_outside) == {}


@pytest.mark.parametrize("text", ["'/home/me/a.wav'", "see ../design.md", "~/data", "('/tmp/x')"])
def test_the_rule_about_places_can_fail(text: str) -> None:
    assert paths_outside(text)


def test_the_rule_about_places_lets_prose_be() -> None:
    assert paths_outside("n/40 rows, f'{output}/var/x', ('..', '.'), and/or") == []


def test_the_map_of_the_architecture_is_short_and_whole() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    missing = [
        name for name in LAYER if not name.startswith("_") and not re.search(rf"`{name}\b", text)
    ]
    assert missing == []
    parts = [path.stem for path in PACKAGE.glob("ivae/**/[!_]*.py")]
    assert [
        part for part in parts if f"{part}.py`" not in text and f"ivae.{part}." not in text
    ] == []


# What loads, and how fast


def run(*arguments: str) -> tuple[str, float]:
    """Return stdout of a fresh interpreter, and the seconds of CPU that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


LOADED = "import json, sys; json.dump(sorted(sys.modules), sys.stdout)"
HELP = """
import sys
from sourcesep.cli import main
try:
    main({words!r})
except SystemExit as end:
    code = end.code
assert code == 0
print()
print("LOADED", end="")
"""


def loaded_by(code: str) -> set[str]:
    text = run("-c", f"{code}\n{LOADED}")[0].rpartition("LOADED")[2]
    return set(json.loads(text))


def test_importing_sourcesep_loads_nothing_heavy() -> None:
    loaded = loaded_by("import sourcesep")
    assert "sourcesep" in loaded
    assert not loaded & (HEAVY | {"numpy", "scipy"})


@pytest.mark.parametrize(
    "command", ["", "separate", "train", "evaluate", "simulate", "info", "match", "demo"]
)
def test_help_loads_nothing_heavy(command: str) -> None:
    words = [command, "--help"] if command else ["--help"]
    loaded = loaded_by(HELP.format(words=words))
    assert "click" in loaded
    assert not loaded & (HEAVY | {"numpy", "scipy"})


def test_what_loads_is_seen() -> None:
    assert "sklearn" in loaded_by("import sourcesep; sourcesep.IVAE")


@pytest.mark.parametrize(
    ("code", "bound"),
    [
        ("import sourcesep", 0.3),
        ("from sourcesep.cli import main; main(['--help'])", 0.5),
    ],
    ids=["import", "help"],
)
def test_starting_is_quick(code: str, bound: float) -> None:
    # Seconds of CPU, the best of five, so that a busy machine does not decide. Measured are
    # 0.05 (import) and 0.1 (help): a margin of five.
    assert min(run("-c", code)[1] for _ in range(5)) < bound


# What is public is documented


def public() -> dict[str, Any]:
    """Return the names of the stub file, and what they are."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    names = [
        alias.asname or alias.name
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return {name: getattr(sourcesep, name) for name in names}


def documented() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function and class, those of `metrics` and `simulate` included."""
    for name, value in public().items():
        if isinstance(value, ModuleType):
            members = ((inner, getattr(value, inner)) for inner in value.__all__)
            for inner, member in members:
                if inspect.isclass(member) or inspect.isroutine(member):
                    yield f"{name}.{inner}", member
        elif callable(value):
            yield name, value


PUBLIC = dict(documented())


def sections(doc: str) -> dict[str, str]:
    """Return the numpydoc sections of a docstring by their titles."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def undocumented(thing: Callable[..., Any]) -> list[str]:
    """Return what a docstring leaves out: parameters, or what comes back."""
    found = sections(thing.__doc__ or "")
    signature = inspect.signature(thing)
    names = [name for name in signature.parameters if name not in ("self", "cls")]
    heads = [
        head.strip().lstrip("*")
        for line in re.findall(r"^(\S[^:\n]*)(?= :|$)", found.get("Parameters", ""), re.MULTILINE)
        for head in line.split(",")
    ]
    missing = [f"parameter {name}" for name in names if name not in heads]
    missing += [f"no parameter {head}" for head in heads if head not in names]
    returns = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    if returns and not inspect.isclass(thing) and not {"Returns", "Yields"} & set(found):
        missing.append("Returns")
    return missing


def test_every_public_name_can_be_imported() -> None:
    names = public()
    assert set(names) == set(sourcesep.__all__)
    assert {
        "ComponentAnalysis",
        "IVAE",
        "Recording",
        "Separation",
        "load",
        "read",
        "save",
        "separate",
    } <= set(names)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name: str) -> None:
    thing = PUBLIC[name]
    assert inspect.getdoc(thing)
    assert undocumented(thing) == []


@pytest.mark.parametrize("name", [n for n, thing in PUBLIC.items() if inspect.isclass(thing)])
def test_public_methods_are_documented(name: str) -> None:
    members = {
        key: member
        for key, member in vars(PUBLIC[name]).items()
        if not key.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }
    assert [key for key, member in members.items() if not member.__doc__] == []


def test_the_rule_about_docstrings_can_fail() -> None:
    def half(a: int, b: int) -> int:
        """Do half.

        Parameters
        ----------
        a, c : int
            Numbers.
        """
        return a + b

    assert undocumented(half) == ["parameter b", "no parameter c", "Returns"]
