from __future__ import annotations

import msgspec
import pytest

from baffle.experiment import read
from baffle.planning.advice import Limits, advice, size
from baffle.planning.amount import Amount
from baffle.planning.forecast import Forecast, Way, forecast
from federation import simulation


def way(name: str, forwards: float, upload: float, memory: int, cosine: float, *, differentiates: bool = True) -> Way:
    return Way(name, differentiates, Amount.of(forwards), Amount.of(upload), Amount.of(upload), memory, cosine, None)


@pytest.fixture
def told() -> Forecast:
    made = simulation()
    found = forecast(read({"rounds": 3}), made, None)
    ways = (
        way("Baffle", 3200, 1000, 30_000_000, 0.5, differentiates=False),
        way("FedSGD", 96, 400_000, 90_000_000, 1.0),
        way("FedSGD, checkpointed", 128, 400_000, 60_000_000, 1.0),
    )
    return msgspec.structs.replace(found, ways=ways)


FASTER = "comes as far with 1/133 of the forward passes and 100 times the upload (less with FedAvg's local steps)"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(), f"backpropagation {FASTER}: use FedSGD wherever clients can run it."),
        (
            Limits(memory=40_000_000, upload=1000),
            "your clients can hold 40 MB and upload 1 kB a round: only forward passes fit, which hold 30 MB and upload "
            "1 kB a round (FedSGD holds 90 MB and uploads 400 kB a round).",
        ),
        (
            Limits(backward=False),
            "your clients can only run forward passes: only forward passes fit, which hold 30 MB and upload 1 kB a "
            "round (FedSGD differentiates).",
        ),
        (
            Limits(memory=70_000_000),
            "your clients can hold 70 MB, and backpropagation comes as far with 1/100 of the forward passes and 100 "
            "times the upload (less with FedAvg's local steps): use FedSGD with gradient checkpointing wherever "
            "clients can run it.",
        ),
        (
            Limits(memory=20_000_000, upload=500),
            "your clients can hold 20 MB and upload 500 B a round: nothing fits; even this holds 30 MB and uploads "
            "1 kB a round. A larger batch or fewer bits make reports smaller; a smaller batch or model takes less "
            "memory.",
        ),
    ],
    ids=["no limits", "small", "no backward", "checkpointed", "too small"],
)
def test_advice_says_what_fits_and_why(told, limits, words) -> None:
    assert advice(told, limits) == words


def test_forward_passes_that_do_not_fit_leave_backpropagation(told) -> None:
    ways = (msgspec.structs.replace(told.ways[0], memory=200_000_000), *told.ways[1:])
    text = advice(msgspec.structs.replace(told, ways=ways), Limits(memory=100_000_000))
    assert text.startswith(
        "your clients can hold 100 MB: forward passes do not fit as they are set (this holds 200 MB)"
    )
    assert text.endswith("use FedSGD.")


def test_where_forward_passes_cost_no_more_they_are_said_to(told) -> None:
    ways = (msgspec.structs.replace(told.ways[0], forwards=Amount.of(20), cosine=1.0), *told.ways[1:])
    assert advice(msgspec.structs.replace(told, ways=ways), Limits()).startswith(
        "both fit; backpropagation comes as far"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1 B"), (999, "999 B"), (1020, "1.02 kB"), (4e7, "40 MB"), (999_999, "1 MB"), (2e12, "2 TB")],
)
def test_sizes_in_words(count, text) -> None:
    assert size(count) == text


def test_a_graph_for_inference_has_no_other_way(told) -> None:
    alone = msgspec.structs.replace(told, ways=told.ways[:1])
    assert advice(alone, Limits()) == "only forward passes can train this model, which can't be differentiated here."


def test_in_a_private_run_backpropagation_is_said_to_keep_no_budget(told) -> None:
    private = msgspec.structs.replace(told, budget=True)
    no_budget = "but keeps no budget of privacy: use FedSGD where none is needed."
    assert advice(private, Limits()) == f"backpropagation {FASTER}, {no_budget}"
    ways = (msgspec.structs.replace(told.ways[0], cosine=0.002), *told.ways[1:])
    assert "less than 1/10,000 of the forward passes" in advice(msgspec.structs.replace(private, ways=ways), Limits())
    ways = (msgspec.structs.replace(told.ways[0], cosine=None), *told.ways[1:])
    text = advice(msgspec.structs.replace(private, ways=ways), Limits())
    assert text == f"backpropagation comes further, by how much takes a measurement, {no_budget}"
    text = advice(msgspec.structs.replace(private, ways=ways), Limits(memory=1_000_000_000, upload=999_999))
    assert text.startswith("your clients can hold 1 GB and upload 1 MB a round, and backpropagation comes further")
