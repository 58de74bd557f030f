from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest

import baffle
from baffle import DataError, ModelError, SettingsError
from baffle.simulation import Share, Simulation
from federation import METHOD, Network, ledger_bytes, samples, share, simulation

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from baffle.runtimes.torch import TorchRuntime  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def pairs(count: int = 3, size: int = 24):
    return [(data.inputs, data.targets) for data in (samples(size, seed) for seed in range(count))]


def quick(**changes) -> baffle.Baffle:
    return baffle.Baffle(**({"forwards": 24, "batch": 2, "optimizer": baffle.Adam(rate=1e-2)} | changes))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Hardswish(), nn.Linear(6, 3))


def test_the_designs_example_runs_as_written() -> None:
    model, clients = mlp(), pairs()
    run = baffle.simulate(
        model,
        clients,
        rounds=20,
        seed=0,
        algorithm=baffle.Baffle(forwards=320, optimizer=baffle.Adam(rate=1e-2)),
    )
    assert run.accuracy is None  # no test data
    assert run.rounds == 20
    assert run.parameters.shape == (51,)
    assert run.parameters.dtype == np.float32
    # Blocks of 30 and 21 weights take 32 directions each, as many as they can use: so a probe sees as many samples as
    # 320 forwards are enough for, rather than √(320/(20 · 3)) = 2.3.
    runtime = TorchRuntime(model, device="cpu")
    first, last = runtime.costs(runtime.layout.blocks("layers"), (clients[0][0][:1], clients[0][1][:1]))
    assert first == 1 > last
    assert run.forward_equivalents == pytest.approx(20 * 5 * (32 + 32 * last + 1 - last), rel=1e-12)
    assert 20 * 64 < run.upload_bytes <= 20 * (64 + 64)


def test_training_learns_and_leaves_the_model_alone() -> None:
    model = mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    test = samples(200, 77)
    run = baffle.simulate(
        model,
        pairs(3, 100),
        rounds=80,
        test=(test.inputs, test.targets),
        algorithm=quick(forwards=100 * 50, batch=50, optimizer=baffle.Adam(rate=0.05)),
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert run.accuracy > 0.75
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in run.tensors().items()})
    with torch.no_grad():
        outputs = model(torch.from_numpy(test.inputs).float()).argmax(1).numpy()
    assert (outputs == test.targets).mean() == pytest.approx(run.accuracy, abs=0.01)


def test_training_begins_with_the_weights_that_the_model_has() -> None:
    model = mlp()
    run = baffle.simulate(model, pairs(), rounds=0)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(run.tensors()[name], parameter.detach().numpy())


def test_a_run_repeats_and_a_seed_makes_another() -> None:
    model = mlp()
    digests = [baffle.simulate(model, pairs(), rounds=3, algorithm=quick(), seed=seed).digest for seed in (4, 4, 5)]
    assert digests[0] == digests[1] != digests[2]


def test_resume_goes_on_with_the_same_arguments(tmp_path) -> None:
    model = mlp()
    arguments = {"algorithm": quick(), "snapshot_every": 2, "seed": 3}
    baffle.simulate(model, pairs(), rounds=3, out=tmp_path / "run", **arguments)
    again = baffle.simulate(model, pairs(), rounds=6, out=str(tmp_path / "run"), resume=True, **arguments)
    straight = baffle.simulate(model, pairs(), rounds=6, out=tmp_path / "straight", **arguments)
    assert ledger_bytes(tmp_path / "run") == ledger_bytes(tmp_path / "straight")
    assert again.digest == straight.digest
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["digest"] == straight.digest


def test_a_loss_of_ones_own_with_one_number_as_its_value() -> None:
    """Linear regression y = 2 x₀ − x₁ + ½ by mean squared error, which is exact for central differences."""
    rng = np.random.default_rng(0)
    clients = []
    for _ in range(3):
        x = rng.normal(size=(40, 2)).astype(np.float32)
        clients.append((x, (2 * x[:, :1] - x[:, 1:] + 0.5).astype(np.float32)))
    runtime = TorchRuntime(nn.Linear(2, 1), nn.functional.mse_loss, device="cpu")
    run = baffle.simulate(
        runtime,
        clients,
        rounds=150,
        test=clients[0],
        algorithm=quick(
            forwards=40 * 40,
            batch=40,
            estimator=baffle.CentralDifference(scale=1e-2),
            bits=16,
            optimizer=baffle.Sgd(rate=0.1),
            clip=0.0,
            average=baffle.ExponentialAverage(decay=0.0),
        ),
    )
    assert run.loss < 1e-4
    assert run.accuracy is None
    np.testing.assert_allclose(run.tensors()["weight"], [[2, -1]], atol=0.02)
    np.testing.assert_allclose(run.tensors()["bias"], [0.5], atol=0.02)


def test_frozen_parameters_are_not_trained() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    run = baffle.simulate(model, pairs(), rounds=3, algorithm=quick())
    assert set(run.tensors()) == {"2.weight", "2.bias"}
    assert run.parameters.size == 21


def test_batch_norm_in_evaluation_mode_is_allowed_and_in_training_mode_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    with pytest.raises(ModelError, match="BatchNorm in training mode"):
        baffle.simulate(model, pairs(), rounds=1, algorithm=quick())
    model[1].eval()
    mean = model[1].running_mean.clone()
    assert math.isfinite(baffle.simulate(model, pairs(), rounds=2, algorithm=quick()).upload_bytes)
    assert torch.equal(model[1].running_mean, mean)


def test_dropout_is_off() -> None:
    torch.manual_seed(1)
    bare = nn.Sequential(nn.Identity(), nn.Linear(4, 3))
    with_dropout = nn.Sequential(nn.Dropout(0.9), bare[1])
    one = baffle.simulate(bare, pairs(), rounds=3, algorithm=quick())
    two = baffle.simulate(with_dropout, pairs(), rounds=3, algorithm=quick())
    assert one.digest == two.digest


def test_torch_and_its_global_generator_are_left_alone() -> None:
    state, random_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    baffle.simulate(mlp(), pairs(), rounds=2, algorithm=quick())
    torch.manual_seed(0)
    mlp()  # what the argument drew; the run drew nothing
    assert np.random.get_state()[1].tolist() == random_state  # noqa: NPY002
    torch.set_rng_state(state)
    before = torch.get_rng_state()
    model = mlp()
    after = torch.get_rng_state()
    baffle.simulate(model, pairs(), rounds=2, algorithm=quick())
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(before, after)


def test_a_runtime_of_ones_own_needs_no_torch() -> None:
    run = baffle.simulate(Network(), pairs(), rounds=2, algorithm=METHOD, seed=1)
    assert run.parameters.size == 27


def test_simulate_is_the_simulation_that_it_describes() -> None:
    made = simulation(test=None)
    data = [(one.data.inputs, one.data.targets) for one in made.shares]
    run = baffle.simulate(Network(), data, rounds=4, algorithm=METHOD, seed=1)
    assert run.digest == made.run(4).digest


def test_an_unknown_argument_is_a_type_error_as_with_any_function() -> None:
    with pytest.raises(TypeError, match="simulate\\(\\) has no argument 'epochs'"):
        baffle.simulate(mlp(), pairs(), rounds=1, epochs=3)
    with pytest.raises(TypeError, match="has no argument 'runtime'"):
        baffle.simulate(mlp(), pairs(), rounds=1, runtime=Network())
    with pytest.raises(TypeError, match="has no argument 'batch'"):  # it is the algorithm's
        baffle.simulate(mlp(), pairs(), rounds=1, batch=5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rounds": -1}, "rounds = -1: must be 0 or more"),
        ({"participation": 0.0}, "participation = 0.0: must be above 0 and at most 1"),
        ({"quorum": 1.5}, "quorum = 1.5: must be above 0 and at most 1"),
        ({"unavailable": 1.0}, "unavailable = 1.0: must be at least 0 and below 1"),
        ({"weight": "square"}, "weight = 'square': must be 'samples' or 'equal'"),
        ({"evaluate_every": 0}, "evaluate_every = 0: must be 1 or more"),
        ({"snapshot_every": 0}, "snapshot_every = 0: must be 1 or more"),
        ({"seed": -1}, "seed = -1: must be between 0"),
        ({"seed": 1 << 64}, "seed = 18446744073709551616: must be between 0"),
    ],
)
def test_an_argument_out_of_its_range_is_named_before_anything_is_written(settings, words, tmp_path) -> None:
    with pytest.raises(SettingsError) as caught:
        baffle.simulate(mlp(), pairs(), **({"rounds": 1, "algorithm": quick(), "out": tmp_path / "run"} | settings))
    assert str(caught.value).startswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"forwards": 1, "estimator": baffle.ForwardDifference()}, "forwards = 1: "),
        (
            {
                "forwards": 1001,
                "batch": 1,
                "orthogonal": False,
                "bits": 32,
                "law": baffle.Gaussian(),
                "blocks": "whole",
            },
            "bits = 32: ",
        ),
    ],
)
def test_a_method_that_can_not_work_is_named_before_anything_is_written(method, words, tmp_path) -> None:
    clients = [(np.zeros((2000, 4)), np.zeros(2000, int))] * 3
    with pytest.raises(SettingsError) as caught:
        baffle.simulate(mlp(), clients, rounds=1, algorithm=quick(**method), out=tmp_path / "run")
    assert str(caught.value).startswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("clients", "words"),
    [
        ([], "clients = 0: must be 1 or more"),
        ([(np.zeros((0, 4)), np.zeros(0, int))], "client 0 has no samples"),
        ([(np.zeros((3, 4)), np.zeros(2, int))], "client 0: 3 inputs and 2 targets"),
        ([(np.full((3, 4), np.nan), np.zeros(3, int))], "client 0: inputs hold a NaN or an infinity"),
        ([(np.zeros((3, 4)), np.array([0.0, np.inf, 1]))], "client 0: targets hold a NaN or an infinity"),
        ([(np.array(["a"]), np.zeros(1, int))], "client 0: inputs must be an array of numbers"),
    ],
)
def test_clients_that_can_not_be_used_are_named(clients, words) -> None:
    with pytest.raises((DataError, SettingsError)) as caught:
        baffle.simulate(mlp(), clients, rounds=1, algorithm=quick())
    assert str(caught.value).startswith(words)


def test_what_the_model_makes_of_the_data_is_told_in_words() -> None:
    """A label that the model has no output for, and samples of another shape."""
    bad_label = [(np.zeros((3, 4)), np.array([0, 1, 3]))]
    bad_shape = [(np.zeros((3, 5)), np.array([0, 1, 2]))]
    for clients, words in (
        (bad_label, r"^the loss fails on outputs of shape \[2, 3\] and targets of shape \[2\]: .* out of bounds"),
        (bad_shape, r"^the model fails on samples of shape \[5\]: "),
    ):
        with pytest.raises(ModelError, match=words):
            baffle.simulate(mlp(), clients, rounds=1, algorithm=quick())


def test_weights_are_samples_or_one() -> None:
    made = simulation(sizes=(12, 5, 1))
    assert made.weights() == [12, 5, 1]
    assert made.header().federation.most_samples == 12
    equal = simulation(sizes=(12, 5, 1), weight="equal")
    assert equal.weights() == [1, 1, 1]
    assert equal.header().samples == (12, 5, 1)


def test_a_client_without_samples_is_refused_by_its_number() -> None:
    empty = Share(samples(3, 0), np.array([], np.int64))
    with pytest.raises(DataError, match="client 1 has no samples"):
        Simulation(runtime=Network(), shares=[share(3, 0), empty], algorithm=METHOD)


def test_a_share_draws_its_own_samples_without_replacement() -> None:
    data = samples(30, 0)
    mine = Share(data, np.array([3, 9, 27]))
    rng = np.random.default_rng(0)
    inputs, targets = mine.draw(rng, 2)
    assert len(np.unique(inputs, axis=0)) == 2
    inputs, targets = mine.draw(rng, 10)
    assert sorted(inputs[:, 0].tolist()) == sorted(data.inputs[[3, 9, 27], 0].tolist())
    assert sorted(targets.tolist()) == sorted(data.targets[[3, 9, 27]].tolist())


def test_evaluation_covers_every_test_sample_once() -> None:
    many = samples(2500, 5)
    made = simulation(test=many)
    theta = made.header().start({}).parameters
    whole = Network().evaluate(theta, [(many.inputs, many.targets)])
    assert made.evaluate(theta).loss == pytest.approx(whole.loss, rel=1e-12)
    assert made.evaluate(theta).accuracy == whole.accuracy


def test_secrets_of_the_run_and_of_the_clients_are_unrelated() -> None:
    made = simulation()
    keys = {made.header().federation.key, *(client.private.secret for client in made.clients())}
    assert len(keys) == 4
    assert made.header() == simulation().header()
    assert msgspec.msgpack.encode(made.header()) == msgspec.msgpack.encode(simulation().header())
