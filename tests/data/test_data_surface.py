import subprocess
import sys
from types import ModuleType

import baffle.data


def test_all_names_what_is_public_and_nothing_else():
    public = {
        name
        for name, value in vars(baffle.data).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert len(baffle.data.__all__) == len(public)
    assert set(baffle.data.__all__) == public


def test_importing_it_imports_neither_torch_nor_scikit_learn():
    check = "import sys, baffle.data; print(sorted({'torch', 'sklearn', 'scipy', 'numba'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
