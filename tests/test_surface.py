from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import baffle

SOURCE = Path(baffle.__file__).parent
HEAVY = ("torch", "numba", "sklearn", "matplotlib", "scipy", "pandas")

PUBLIC = [
    "Adam",
    "Baffle",
    "BaffleError",
    "CentralDifference",
    "CentredDifference",
    "DataError",
    "DivergenceError",
    "ExponentialAverage",
    "ForwardDifference",
    "Gaussian",
    "LedgerError",
    "MissingExtraError",
    "ModelError",
    "Progress",
    "Rademacher",
    "ReportError",
    "Result",
    "SettingsError",
    "Sgd",
    "Sparse",
    "__version__",
    "simulate",
]


def python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter of its own."""
    where = os.environ | {"PYTHONPATH": str(SOURCE.parent), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=where,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_public_names_are_exactly_these() -> None:
    assert baffle.__all__ == PUBLIC == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(baffle, name) is not None


def test_public_names_are_documented() -> None:
    for name in set(PUBLIC) - {"__version__"}:
        assert len(getattr(baffle, name).__doc__) > 10, name


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then everything else, each by the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_every_list_of_names_is_sorted_and_true() -> None:
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lists = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__"
        ]
        for names in lists:
            assert names == sorted(set(names), key=rank), path


def test_exceptions_are_one_family() -> None:
    errors = [getattr(baffle, name) for name in PUBLIC if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(error, baffle.BaffleError) for error in errors)


ENDS = f"""
import sys
loaded = sorted(set(sys.modules) & set({HEAVY!r}))
print("LOADED", loaded)
"""


@pytest.mark.parametrize(
    "code",
    [
        "import baffle",
        "import baffle.client, baffle.ledger, baffle.messages, baffle.server, baffle.run, baffle.session",
        "from baffle.experiment import read, read_toml; read({'rounds': 3})",
        "from baffle.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from baffle.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
        "from baffle.cli import main\nassert main(['train', '--rounds', 'x']) == 2",
        "from baffle.cli import main\nassert main(['verify', 'run']) == 0",
        "from baffle.cli import main\nassert main(['replay', 'run']) == 0",
        "import baffle.data, baffle.models, baffle.runtimes, baffle.kernels",
    ],
    ids=["import", "edge", "settings", "help", "train help", "a wrong flag", "verify", "replay", "families"],
)
def test_nothing_heavy_is_imported_where_nothing_is_trained(code, tmp_path) -> None:
    from federation import simulation

    simulation().run(2, out=tmp_path / "run")
    told = python(code + ENDS, tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "LOADED []"


BLOCKED = """
import sys
from importlib.machinery import PathFinder

class Without:
    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in sys.argv[1].split(",")
        return None if absent else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without()
"""


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("torch", "torch is not installed; install it with: pip install 'baffle[train]'"),
        ("sklearn", "sklearn is not installed; install it with: pip install 'baffle[train]'"),
    ],
)
def test_without_an_extra_training_says_which(absent, words, tmp_path) -> None:
    if absent == "sklearn":
        pytest.importorskip("torch")
    code = BLOCKED + "from baffle.cli import main\nsys.exit(main(['train', '--rounds', '1', '--out', 'run']))"
    told = python(code, tmp_path, absent)
    assert told.returncode == 2
    assert told.stderr == f"baffle: error: {words}\n"
    assert list(tmp_path.iterdir()) == []


def test_simulate_without_torch_says_which_extra(tmp_path) -> None:
    code = (
        BLOCKED
        + "import baffle, numpy as np\n"
        + "try: baffle.simulate(object(), [(np.zeros((2, 1)), np.zeros(2))], rounds=1)\n"
        + "except baffle.MissingExtraError as error: print(error, '|', error.package, error.extra)\n"
    )
    told = python(code, tmp_path, "torch")
    assert told.stdout == "torch is not installed; install it with: pip install 'baffle[train]' | torch train\n"


def test_a_whole_federation_runs_without_any_extra(tmp_path) -> None:
    """With a runtime of one's own: no torch, no numba, no scikit-learn, no Matplotlib; NumPy's kernels do."""
    code = (
        BLOCKED
        + f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        + "import federation, baffle.kernels\n"
        + "from pathlib import Path\n"
        + "made = federation.simulation(kernels=baffle.kernels.fastest())\n"
        + "print(made.kernels)\n"
        + "print(made.run(3, out=Path('run')).digest)\n"
        + "from baffle.cli import main\n"
        + "sys.exit(main(['replay', 'run']))\n"
    )
    told = python(code, tmp_path, ",".join(HEAVY))
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].startswith("PlainKernels(")
    assert lines[-1] == f"digest      {lines[1]}"
    from federation import simulation

    assert simulation().run(3).digest == lines[1]


def test_the_command_is_there_as_a_module(tmp_path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "baffle", "--version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stdout) == (0, f"baffle {baffle.__version__}\n")


def test_the_command_line_alone_prints_and_exits() -> None:
    """The only place that prints or exits is cli (section 3)."""
    for path in SOURCE.rglob("*.py"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                assert name not in ("print", "exit"), f"{path}:{node.lineno}"
