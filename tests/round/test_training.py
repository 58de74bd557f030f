from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from baffle import Adam, DivergenceError, Gaussian, Rademacher, Sgd
from baffle import run as runs
from baffle.kernels import PlainKernels
from baffle.messages import Round, decode
from baffle.parameters import digest
from baffle.training import ATTEMPTS, Training
from federation import FEATURES, KERNELS, METHOD, Network, Watched, ledger_bytes, simulation


def with_(method=METHOD, **changes):
    return msgspec.structs.replace(method, **changes)


def rounds_of(folder) -> list[Round]:
    payloads = list(runs.Reader(folder / "ledger"))
    return [decode(payload, Round) for payload in payloads[1:]]


def test_training_learns() -> None:
    """30 rounds of 200 probes on 36 samples; a classifier of chance alone has a loss of ln 3 = 1.0986."""
    method = with_(forwards=200 * 60, batch=60, optimizer=Adam(rate=0.05), law=Gaussian())
    made = simulation(method, (60, 60, 60))
    result = made.run(60)
    start = made.evaluate(made.header().start({}).parameters)
    assert start.loss > 1.0
    assert result.loss < 0.75
    assert result.accuracy > 0.75


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_run_repeated_writes_the_same_ledger(groups, tmp_path) -> None:
    made = [simulation(with_(groups=groups, law=Gaussian()), participation=0.7, unavailable=0.2) for _ in range(2)]
    results = [one.run(7, out=tmp_path / str(i)) for i, one in enumerate(made)]
    assert ledger_bytes(tmp_path / "0") == ledger_bytes(tmp_path / "1")
    assert results[0].digest == results[1].digest
    assert results[0].ledger_digest == results[1].ledger_digest
    assert made[0].run(7).digest == results[0].digest  # with and without a folder


def test_another_seed_is_another_run() -> None:
    assert simulation(seed=1).run(2).digest != simulation(seed=2).run(2).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": "whole"},
        {"blocks": "layers"},
        {"allocation": "adaptive", "orthogonal": True, "forwards": 150},
        {"allocation": "variance", "blocks": ("*.bias",), "law": Rademacher(), "forwards": 200},
    ],
    ids=str,
)
def test_neither_kernels_nor_threads_change_a_bit(changes, tmp_path) -> None:
    pytest.importorskip("numba")
    from baffle.kernels.compiled import CompiledKernels

    method = with_(**({"law": Gaussian(), "groups": 2, "local_steps": 2, "forwards": 80} | changes))
    ledgers = set()
    for number, kernels in enumerate(
        [PlainKernels(), PlainKernels(slice_size=8), CompiledKernels(), CompiledKernels(threads=3, room=16)]
    ):
        simulation(method, kernels=kernels).run(4, out=tmp_path / str(number))
        ledgers.add(ledger_bytes(tmp_path / str(number)))
    assert len(ledgers) == 1


@pytest.mark.parametrize(
    "method", [METHOD, with_(allocation="adaptive", orthogonal=True, batch=0, forwards=400)], ids=["plain", "adaptive"]
)
def test_torch_in_float64_writes_one_ledger_with_any_threads_and_either_kernels(method, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from torch import nn

    from baffle.kernels import fastest
    from baffle.runtimes.torch import TorchRuntime

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Hardswish(), nn.Linear(8, 3))
    before, ledgers = torch.get_num_threads(), set()
    for number, (threads, kernels, chunk) in enumerate([(1, KERNELS, 1024), (2, fastest(), 3)]):
        runtime = TorchRuntime(model, device="cpu", precision="float64", drawn=True, chunk=chunk, threads=threads)
        simulation(method, runtime=runtime, kernels=kernels).run(4, out=tmp_path / str(number))
        ledgers.add(ledger_bytes(tmp_path / str(number)))
    assert torch.get_num_threads() == before
    assert len(ledgers) == 1


def test_a_missed_quorum_is_recorded_and_tried_again_with_a_new_key(tmp_path) -> None:
    made = simulation(sizes=(6,) * 4, unavailable=0.5, quorum=0.75)
    result = made.run(8, out=tmp_path)
    records = rounds_of(tmp_path)
    failed = [record for record in records if record.aggregate is None]
    assert result.rounds == 8
    assert failed, "with these settings some attempt of 8 rounds fails"
    assert len(records) == 8 + len(failed)
    assert all(len(record.answered) < 3 for record in failed)
    assert all(len(record.answered) >= 3 for record in records if record.aggregate is not None)
    assert len({record.plan.key for record in records}) == len(records)
    expected = (0, 0)
    for record in records:
        assert (record.plan.round, record.plan.attempt) == expected
        expected = (expected[0], expected[1] + 1) if record.aggregate is None else (expected[0] + 1, 0)
        absent = set(record.plan.cohort) - set(record.answered)
        assert record.left_out == tuple((client, "no answer") for client in sorted(absent))
    assert runs.verify(tmp_path)[1] == 8


def test_a_round_that_nobody_answers_is_recorded_like_any_other(tmp_path) -> None:
    """Two clients of whom each is away three times in four: some attempt has no report at all."""
    made = simulation(sizes=(6, 6), unavailable=0.75, quorum=0.5)
    result = made.run(5, out=tmp_path)
    records = rounds_of(tmp_path)
    assert any(record.answered == () for record in records)
    assert result.rounds == 5
    answered = Counter(client for record in records for client in record.answered)
    assert {row["client"]: row["answered"] for row in result.clients} == {0: answered[0], 1: answered[1]}


def test_a_run_that_never_meets_its_quorum_gives_up_in_words(tmp_path) -> None:
    runtime = Watched(Network(), lambda losses: losses * np.nan)
    made = simulation(runtime=runtime)
    with pytest.raises(DivergenceError) as caught:
        made.run(3, out=tmp_path)
    assert str(caught.value) == (
        f"round 0 was tried {ATTEMPTS} times and never had 2 reports of 3 clients: no probe had a finite loss (3 times)"
    )
    records = rounds_of(tmp_path)
    assert [record.plan.attempt for record in records] == list(range(ATTEMPTS))
    assert len({record.plan.key for record in records}) == ATTEMPTS
    assert runs.verify(tmp_path)[1] == 0


def test_one_client_whose_losses_are_never_finite_harms_nobody(tmp_path) -> None:
    """Clients 0 and 1 of three go on as they would if 2 were away."""
    clean = simulation()
    spoilt = clean.shares[2].data.inputs.copy()
    spoilt[:] = 1e200  # tanh is 1; the softmax of a weight times that is not finite

    class Fragile(Network):
        def loss(self, point, batch):
            return float("nan") if np.abs(batch[0]).max() > 1e100 else super().loss(point, batch)

    broken = replace(clean.shares[2], data=type(clean.shares[2].data)("broken", spoilt, clean.shares[2].data.targets))
    made = replace(clean, shares=[*clean.shares[:2], broken], runtime=Fragile())
    result = made.run(4, out=tmp_path)
    for record in rounds_of(tmp_path):
        assert record.answered == (0, 1)
        assert record.left_out == ((2, "no probe had a finite loss"),)
    engine = made.gathering()
    absent = Training(made.algorithm, made.header().federation, _Without(engine, 2), KERNELS, *_ignore())
    assert digest(absent.run(made.header().start({}), 4).parameters) == result.digest


class _Without:
    """An engine whose client `number` never answers."""

    def __init__(self, engine, number: int) -> None:
        self.engine, self.number = engine, number

    def present(self):
        return self.engine.present()

    def gather(self, plan, parameters):
        reports = self.engine.gather(plan, parameters)
        return [data for client, data in zip(plan.cohort, reports, strict=True) if client != self.number]


def _ignore():
    return (lambda _: None), (lambda *_: None)


def test_a_probe_that_is_missing_everywhere_costs_a_little_and_harms_nothing() -> None:
    """Of 40 probes, the first of every block is never finite; the run learns almost as well."""

    def spoil(losses):
        losses = losses.copy()
        losses[0] = np.nan
        return losses

    method = with_(forwards=200, optimizer=Adam(rate=0.05))
    clean = simulation(method, (30, 30)).run(30)
    spoilt = simulation(method, (30, 30), runtime=Watched(Network(), spoil)).run(30)
    assert clean.digest != spoilt.digest
    assert spoilt.loss < clean.loss + 0.1
    assert spoilt.loss < 1.0


def test_divergence_keeps_the_last_good_state_on_disk(tmp_path) -> None:
    """θ ← θ − 10¹³ θ: weights near ½ pass 3.4e38 in their third round, round 2; rounds 0 and 1 are kept."""
    made = simulation(with_(optimizer=Sgd(rate=1.0, weight_decay=1e13)), snapshot_every=1)
    shown = []
    with pytest.raises(DivergenceError, match=r"round 2 would make a weight infinite; the model of the round before"):
        made.run(10, out=tmp_path, progress=shown.append)
    assert [progress.round for progress in shown] == [0, 1, 2]
    assert runs.verify(tmp_path)[1] == 2
    _, state = runs.replay(tmp_path, KERNELS)
    assert state.round == 2
    assert np.isfinite(state.parameters).all()
    assert np.abs(state.parameters).max() > 1e24
    assert digest(state.parameters) == rounds_of(tmp_path)[-1].digest


def test_a_round_counts_only_once_it_is_on_disk() -> None:
    """Where recording fails, no new state is shown and the failure is not swallowed."""
    made = simulation()
    seen = []

    def refuse(_):
        raise OSError("disk full")

    training = Training(
        made.algorithm,
        made.header().federation,
        made.gathering(),
        KERNELS,
        refuse,
        lambda *state: seen.append(state),
    )
    with pytest.raises(OSError, match=re.escape("disk full")):
        training.run(made.header().start({}), 3)
    assert seen == []


def test_rounds_are_counted_in_all() -> None:
    made = simulation()
    header = made.header()
    training = Training(made.algorithm, header.federation, made.gathering(), KERNELS, *_ignore())
    whole = training.run(header.start({}), 6)
    halves = training.run(training.run(header.start({}), 2), 6)
    assert whole.round == halves.round == 6
    assert digest(whole.parameters) == digest(halves.parameters)
    assert training.run(whole, 3) is whole
