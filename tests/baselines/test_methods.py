from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baffle import Adam, ExponentialAverage, ModelError, SettingsError, Sgd  # noqa: E402
from baffle.baselines import Centralised, EvolutionStrategies, FedAvg, FedSgd, FedZo  # noqa: E402
from baffle.baselines.backpropagation import Backpropagation  # noqa: E402
from baffle.baselines.baseline import Baseline, pooled  # noqa: E402
from baffle.baselines.evolution import ranks  # noqa: E402
from baffle.baselines.fedzo import sphere  # noqa: E402
from baffle.baselines.work import Work, weighted_mean  # noqa: E402
from baffle.directions import Gaussian  # noqa: E402
from baffle.kernels import PlainKernels  # noqa: E402
from baffle.keys import Key  # noqa: E402
from baffle.messages import BlockPlan  # noqa: E402
from baffle.probes import Probes  # noqa: E402
from baffle.runtimes import Evaluation  # noqa: E402
from baffle.runtimes.torch import TorchRuntime  # noqa: E402
from baselines.small import federation, last, loss_of, run, samples  # noqa: E402

NONE = ExponentialAverage(decay=0.0)
SGD = Sgd(rate=0.5)


def gradient_of(vector: np.ndarray, batch) -> np.ndarray:
    leaf = torch.from_numpy(vector.copy()).requires_grad_(True)
    loss_of(leaf, *batch).backward()
    return leaf.grad.numpy()


def first_weights(made) -> np.ndarray:
    return made.header().start(made.runtime.given).parameters


def batch_of(made, client: int, number: int, step: int, size: int):
    """Return the mini-batch that a client of Baffle draws, spelled out."""
    key = Key.root(made.seed).fold("clients", client, "batch", number, 0, step)
    return made.shares[client].draw(key.generator(), size)


# By backpropagation.


def test_fedsgd_is_the_loop_that_one_would_write_to_the_bit() -> None:
    made = federation()
    weights = first_weights(made)
    for number in range(4):
        gradients = [gradient_of(weights, batch_of(made, client, number, 0, 6)) for client in range(4)]
        total = sum(size * g.astype(np.float64) for size, g in zip((12, 20, 9, 15), gradients, strict=True))
        weights = weights - np.float32(0.5) * (total / 56).astype(np.float32)
    found = last(FedSgd(batch=6, optimizer=SGD), 4)
    np.testing.assert_array_equal(found, weights)


def test_fedavg_with_one_step_is_fedsgd_with_the_product_of_the_rates() -> None:
    """Δ = θ − (θ − η g) is η g up to the rounding of θ."""
    average = last(FedAvg(batch=6, local_steps=1, local_rate=0.25, optimizer=Sgd(rate=2.0)), 6)
    np.testing.assert_allclose(average, last(FedSgd(batch=6, optimizer=SGD), 6), atol=2e-6)


def test_fedavg_is_the_mean_of_what_clients_come_to() -> None:
    made = federation()
    start = first_weights(made)
    ends = []
    for client in range(4):
        own, velocity = start, 0.0
        for step in range(3):
            velocity = 0.5 * velocity + gradient_of(own, batch_of(made, client, 0, step, 5))
            own = (own - np.float32(0.2) * velocity).astype(np.float32)
        ends.append(own)
    mean = np.average(ends, axis=0, weights=(12, 20, 9, 15))
    found = last(FedAvg(batch=5, local_steps=3, local_rate=0.2, local_momentum=0.5), 1)
    np.testing.assert_allclose(found, mean, atol=1e-6)


def test_an_epoch_takes_every_sample_once() -> None:
    made = federation()
    seen = []

    def gradient(parameters, batch):
        seen.append(batch)
        return np.zeros_like(parameters)

    work = Work(
        parameters=first_weights(made),
        share=made.shares[1],
        runtime=made.runtime,
        gradient=gradient,
        kernels=PlainKernels(),
        shared=Key.root(0),
        private=Key.root(1),
        round=0,
        attempt=0,
    )
    method = FedAvg(batch=8, epochs=2)
    method.answer(work)
    assert [len(targets) for _, targets in seen] == [8, 8, 4, 8, 8, 4]
    assert method.steps(20) == 6
    assert method.forwards(20) == 3 * 40
    data = made.shares[1].data.inputs[made.shares[1].indices]
    for epoch in (seen[:3], seen[3:]):
        inputs = np.concatenate([inputs for inputs, _ in epoch])
        assert sorted(map(tuple, inputs)) == sorted(map(tuple, data))
    assert not np.array_equal(seen[0][0], seen[3][0]), "the second epoch has an order of its own"


def test_one_client_that_averages_is_centralised_sgd() -> None:
    alone = {"sizes": (30,)}
    average = last(FedAvg(batch=8, local_steps=1, local_rate=0.3), 10, **alone)
    np.testing.assert_allclose(average, last(Centralised(batch=8, optimizer=Sgd(rate=0.3)), 10, **alone), atol=2e-6)


def test_five_local_steps_of_one_client_are_five_central_ones_on_all_samples() -> None:
    alone = {"sizes": (30,)}
    average = last(FedAvg(batch=30, local_steps=5, local_rate=0.3, local_momentum=0.0), 2, **alone)
    np.testing.assert_allclose(average, last(Centralised(batch=30, optimizer=Sgd(rate=0.3)), 10, **alone), atol=1e-5)


def test_pooled_samples_are_those_of_all_clients() -> None:
    made = pooled(federation(participation=0.5, unavailable=0.5))
    assert [share.indices.tolist() for share in made.shares] == [list(range(56))]
    assert (made.participation, made.unavailable) == (1.0, 0.0)
    apart = dataclasses.replace(federation(), shares=[*federation().shares, *federation().shares])
    with pytest.raises(SettingsError, match="must share one data set to be pooled"):
        pooled(apart)


@pytest.mark.parametrize("depth", [2, 3, 9])
def test_checkpointed_gradients_are_the_same(depth) -> None:
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(6, 6), nn.Tanh())])
    runtime = TorchRuntime(module, device="cpu")
    weights, batch = runtime.layout.flatten(runtime.given), samples(20, 1).take(np.arange(20))
    plain = Backpropagation(runtime)(weights, batch)
    np.testing.assert_allclose(Backpropagation(runtime, checkpointing=True)(weights, batch), plain, atol=1e-7)
    assert np.abs(plain).max() > 1e-3


class Branches(torch.nn.Module):
    """No Sequential: two children and a list of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 5))
        self.more = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(5, 5)) for _ in "ab"])
        self.last = torch.nn.Linear(5, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        for part in self.more:
            hidden = hidden + part(hidden)
        return self.last(hidden)


def test_checkpointing_runs_the_parts_of_any_module_twice() -> None:
    runtime = TorchRuntime(Branches(), device="cpu")
    weights, batch = runtime.layout.flatten(runtime.given), samples(20, 1).take(np.arange(20))
    names, counted, found = ("first.0", "more.0.1", "more.1.1"), {}, {}
    for checkpointing in (False, True):
        backward = Backpropagation(runtime, checkpointing=checkpointing)
        calls: list[str] = []
        inner = dict(backward.module.named_modules())
        for name in names:
            inner[name].register_forward_pre_hook(lambda *_, name=name, calls=calls: calls.append(name))
        found[checkpointing] = backward(weights, batch)
        counted[checkpointing] = {name: calls.count(name) for name in names}
    np.testing.assert_allclose(found[True], found[False], atol=1e-7)
    assert counted == {False: dict.fromkeys(names, 1), True: dict.fromkeys(names, 2)}


def test_checkpointing_needs_two_parts() -> None:
    runtime = TorchRuntime(torch.nn.Linear(6, 3), device="cpu")
    with pytest.raises(ModelError, match="two parts or more"):
        Backpropagation(runtime, checkpointing=True)


def test_batches_that_go_through_in_pieces_have_the_same_gradient() -> None:
    module = federation().runtime.module()
    batch = samples(20, 1).take(np.arange(20))
    whole, pieces = (TorchRuntime(module, device="cpu", chunk=chunk) for chunk in (256, 7))
    weights = whole.layout.flatten(whole.given)
    np.testing.assert_allclose(
        Backpropagation(pieces)(weights, batch), Backpropagation(whole)(weights, batch), atol=1e-7
    )


def test_pruned_and_frozen_weights_stay() -> None:
    module = federation().runtime.module()
    with torch.no_grad():
        module[0].weight[:, ::2] = 0.0
    module[2].bias.requires_grad_(False)
    runtime = TorchRuntime(module, device="cpu", pruned=True)
    weights, batch = runtime.layout.flatten(runtime.given), samples(20, 1).take(np.arange(20))
    found = Backpropagation(runtime)(weights, batch)
    assert found.shape == (24 + 8 + 24,)
    whole = TorchRuntime(module, device="cpu")
    dense = Backpropagation(whole)(whole.layout.flatten(whole.given), batch)
    np.testing.assert_array_equal(found[:24], dense[:48].reshape(8, 6)[:, 1::2].ravel())
    np.testing.assert_array_equal(found[24:], dense[48:])


def test_what_can_not_be_differentiated_is_refused_before_anything_is_written(tmp_path) -> None:
    class Steps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(6, 3)

        def forward(self, inputs):
            return self.linear(inputs).detach()

    with pytest.raises(ModelError, match="can't be differentiated"):
        run(FedSgd(), 1, module=Steps(), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# By forward passes.


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """½ θ·A θ + b·θ, the same on every batch, in float64."""

    matrix: np.ndarray
    vector: np.ndarray
    precision: np.dtype = dataclasses.field(default_factory=lambda: np.dtype(np.float64))

    def losses(self, points, batches) -> np.ndarray:
        return np.array([[0.5 * p @ self.matrix @ p + self.vector @ p] * len(batches) for p in points])

    def evaluate(self, parameters, batches) -> Evaluation:
        raise NotImplementedError


def quadratic(size: int = 12) -> Quadratic:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(size, size))
    return Quadratic(half @ half.T / size, rng.normal(size=size))


def test_directions_of_fedzo_are_uniform_on_the_unit_sphere() -> None:
    drawn = sphere(Key.root(4), 20_000, 5).astype(np.float64)
    np.testing.assert_allclose((drawn**2).sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(drawn.T @ drawn / 20_000, np.eye(5) / 5, atol=0.01)
    np.testing.assert_allclose(drawn.mean(0), 0.0, atol=0.015)


def test_the_estimate_of_fedzo_is_unbiased_on_a_quadratic() -> None:
    """Smoothing over a ball shifts a quadratic by a constant: the expectation is the gradient itself."""
    loss, point = quadratic(), np.linspace(-1, 1, 12).astype(np.float32)
    truth = loss.matrix @ point + loss.vector
    method = FedZo(directions=20_000, scale=0.1)
    found = method.estimate(point, (np.zeros(1), np.zeros(1)), loss, Key.root(7))
    # The relative squared error of b₂ directions is about n/b₂ = 0.0006; five times its root is 0.12.
    assert np.linalg.norm(found - truth) < 0.12 * np.linalg.norm(truth)
    few = msgspec.structs.replace(method, directions=200)
    errors = [few.estimate(point, (np.zeros(1), np.zeros(1)), loss, Key.root(seed)) - truth for seed in range(50)]
    relative = np.mean([error @ error for error in errors]) / (truth @ truth)
    assert 0.5 * 12 / 200 < relative < 2 * 12 / 200


def test_ranks_by_hand() -> None:
    assert ranks(np.array([0.5, 0.1, 2.0, 0.1], np.float32)).tolist() == [2, 0, 3, 1]
    assert ranks(np.array([np.nan, 1.0, np.inf, 0.0], np.float32)).tolist() == [2, 1, 3, 0]


def test_an_estimate_of_evolution_strategies_by_hand() -> None:
    """Two pairs of losses (3, 1) and (0, 2): ranks (3, 1) and (0, 2), so (2 z₁ − 2 z₂) / (3 · 4 σ)."""
    method, key, size = EvolutionStrategies(population=4, scale=0.5), Key.root(5), 9
    z = [Gaussian().entries(key, k, 0, size) / Gaussian.deviation for k in range(2)]
    found = method.rebuild(np.array([3.0, 1.0, 0.0, 2.0], np.float32), size, key, PlainKernels())
    np.testing.assert_allclose(found, (2 * z[0] - 2 * z[1]) / (3 * 4 * 0.5), rtol=1e-6)
    assert found.dtype == np.float32


def test_evolution_strategies_descend() -> None:
    """On a quadratic, the estimate points where the gradient does: a cosine near √(P/2 / (P/2 + n))."""
    loss, point, key = quadratic(), np.linspace(-1, 1, 12).astype(np.float32), Key.root(2)
    truth = loss.matrix @ point + loss.vector
    method = EvolutionStrategies(population=400, scale=0.02)
    block = BlockPlan(0, 12, 200, 1.0, Gaussian())
    probes = Probes(point.astype(float), block, key, 0.02, (1, -1), PlainKernels())
    losses = loss.losses(probes, [0])[:, 0].astype(np.float32)
    found = method.rebuild(losses, 12, key, PlainKernels())
    assert found @ truth > 0.9 * np.linalg.norm(found) * np.linalg.norm(truth)


def test_evolution_strategies_lower_the_loss() -> None:
    found = run(EvolutionStrategies(batch=15, population=60, optimizer=Adam(rate=0.05), average=NONE), 40)
    assert found.accuracy > 0.8


def test_fedzo_lowers_the_loss() -> None:
    found = run(FedZo(batch=15, local_rate=0.1, scale=0.01, average=NONE), 40)
    assert found.accuracy > 0.7


# Settings.


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FedSgd(batch=0), "batch"),
        (lambda: FedSgd(anneal=-1), "anneal"),
        (lambda: FedAvg(local_steps=0), "local_steps"),
        (lambda: FedAvg(epochs=-1), "epochs"),
        (lambda: FedAvg(local_rate=0.0), "local_rate"),
        (lambda: FedAvg(local_momentum=1.0), "local_momentum"),
        (lambda: FedZo(directions=0), "directions"),
        (lambda: FedZo(scale=0.0), "scale"),
        (lambda: EvolutionStrategies(population=5), "population"),
        (lambda: EvolutionStrategies(scale=float("inf")), "scale"),
        (lambda: Centralised(batch=0), "batch"),
        (lambda: Baseline(FedSgd(), federation(engine="ray")), "engine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_out_of_range_is_named(make, field) -> None:
    with pytest.raises(SettingsError) as error:
        make()
    assert error.value.field == field


def test_the_weighted_mean_is_of_the_clients() -> None:
    answers = [np.array([1.0, 2.0], np.float32), np.array([4.0, -1.0], np.float32)]
    assert weighted_mean(answers, [1, 2]).tolist() == [3.0, 0.0]
