from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from baffle import ModelError, SettingsError  # noqa: E402
from baffle.assembly import assemble  # noqa: E402
from baffle.experiment import read  # noqa: E402
from baffle.parameters import Given, digest  # noqa: E402
from baffle.processors import cores  # noqa: E402


def made(**settings):
    return assemble(read({"threads": 1, "forwards": 108, "hidden": [4], "device": "cpu"} | settings))


def initial(simulation) -> np.ndarray:
    return simulation.header().start(simulation.runtime.given).parameters


def test_every_sample_belongs_to_one_client() -> None:
    for partition in ("iid", "dirichlet", "shards"):
        simulation = made(partition=partition, clients=7)
        together = np.concatenate([share.indices for share in simulation.shares])
        assert len(simulation.shares) == 7
        assert sorted(together.tolist()) == list(range(1438))  # four fifths of 1,797
        assert len({id(share.data) for share in simulation.shares}) == 1  # held once
        assert len(simulation.test) == 359


def test_equal_settings_make_equal_runs_and_the_seed_moves_everything() -> None:
    one, two, other = made(), made(), made(seed=1)
    assert one.header() == two.header()
    assert digest(initial(one)) == digest(initial(two)) != digest(initial(other))
    assert all(np.array_equal(a.indices, b.indices) for a, b in zip(one.shares, two.shares, strict=True))
    assert not np.array_equal(one.shares[0].indices, other.shares[0].indices)
    assert one.header().federation.key != other.header().federation.key


def test_settings_reach_the_simulation() -> None:
    simulation = made(
        batch=9,
        participation=0.4,
        quorum=0.6,
        weight="equal",
        unavailable=0.2,
        evaluate_every=3,
        snapshot_every=4,
        seed=8,
        precision="float64",
        chunk=77,
    )
    names = ("participation", "quorum", "weight", "unavailable", "evaluate_every", "snapshot_every", "seed")
    assert [getattr(simulation, name) for name in names] == [0.4, 0.6, "equal", 0.2, 3, 4, 8]
    assert simulation.runtime.precision == np.float64
    assert simulation.runtime.chunk == 77
    assert (simulation.algorithm.forwards, simulation.algorithm.batch) == (108, 9)
    assert simulation.header().federation.most_samples == 1


def test_first_weights_come_from_the_key_or_the_model() -> None:
    drawn, own = made(), made(initial="model")
    assert not drawn.runtime.layout.given
    assert all(tensor.initial == Given() for tensor in own.runtime.layout.tensors)
    np.testing.assert_array_equal(own.runtime.layout.unflatten(initial(own))["1.bias"], own.runtime.given["1.bias"])
    assert digest(initial(own)) == digest(initial(made(initial="model")))
    assert digest(initial(own)) != digest(initial(drawn))


@pytest.mark.parametrize(("model", "weights"), [("mlp", 64 * 4 + 4 + 40 + 10), ("lenet", 416 + 25_664 + 650)])
def test_models_have_the_size_that_they_should(model, weights) -> None:
    assert made(model=model).runtime.layout.size == weights


def test_the_runtime_has_the_threads_asked_for_and_the_process_keeps_its_own() -> None:
    before = torch.get_num_threads()
    assert [made(threads=threads).runtime.threads for threads in (2, 1, 5)] == [2, 1, 5]
    assert made(threads=0).runtime.threads == 1  # 310 weights
    assert made(threads=0, model="lenet").runtime.threads == cores()  # 26,730
    assert torch.get_num_threads() == before


def test_a_model_is_tried_before_the_run_begins(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tried_model.py").write_text(
        "from torch import nn\n"
        "def wide(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(65, classes))\n"
        "def few(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes - 1))\n"
    )
    with pytest.raises(ModelError, match=r"tried_model:wide: the model fails on samples of shape \[1, 8, 8\]"):
        made(model="tried_model:wide")
    with pytest.raises(ModelError, match="tried_model:few"):
        made(model="tried_model:few")


def test_owners_must_be_named_by_the_data() -> None:
    with pytest.raises(SettingsError, match="digits does not say whose each sample is"):
        made(partition="owner")


def test_images_are_resized_when_asked() -> None:
    assert made(image_size=4).runtime.layout.size == 16 * 4 + 4 + 40 + 10
    assert made(image_size=0).runtime.layout.size == made().runtime.layout.size
