"""Losses against closed forms and torch's own; loss SPECs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weakcell.host.train.loss_spec import LOSSES, LossSpec
from weakcell.host.train.losses import CrossEntropy, MarginCrossEntropy, ModifiedHinge, MultiMargin
from weakcell.memmodels.errors import UsageError

ROWS = torch.tensor([[3.0, -1.0, 0.5], [-2.0, 4.0, 4.0], [0.0, 0.0, 0.0], [1.0, 2.0, -7.0]])
CLASSES = torch.tensor([0, 1, 2, 0])


def test_modified_hinge_is_its_equation() -> None:
    expected = sum(
        max(0.0, 2.0 - (1 if c == y else -1) * z) for row, y in zip(ROWS.tolist(), CLASSES.tolist(), strict=True)
        for c, z in enumerate(row)
    )  # fmt: skip
    assert ModifiedHinge(2.0)(ROWS, CLASSES).item() == pytest.approx(expected / 12)
    assert ModifiedHinge(2.0, reduction="none")(ROWS, CLASSES).shape == (4,)
    assert ModifiedHinge(2.0, reduction="sum")(ROWS, CLASSES).item() == pytest.approx(expected / 3)


def test_modified_hinge_is_satisfied_by_outputs_b_away_from_zero() -> None:
    outputs = torch.where(torch.arange(3) == CLASSES[:, None], 5.0, -5.0)
    assert ModifiedHinge(5.0)(outputs, CLASSES).item() == 0
    assert ModifiedHinge(5.5)(outputs, CLASSES).item() == 0.5


def test_margin_cross_entropy_is_its_equation() -> None:
    m, scale = 1.5, 0.7
    costs = []
    for row, y in zip(ROWS.tolist(), CLASSES.tolist(), strict=True):
        terms = [math.exp(scale * z - (m if c == y else 0)) for c, z in enumerate(row)]
        costs.append(-math.log(terms[y] / sum(terms)))
    assert MarginCrossEntropy(m, scale)(ROWS, CLASSES).item() == pytest.approx(sum(costs) / 4, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    weighted=st.booleans(),
    ignore=st.sampled_from([-100, 1]),
    shape=st.sampled_from([(), (6,), (4, 5), (2, 3, 2)]),
    seed=st.integers(0, 100),
)
def test_without_margin_it_is_torch_cross_entropy(
    smoothing: float, reduction: str, weighted: bool, ignore: int, shape: tuple[int, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((*shape[:1], 7, *shape[1:]), generator=generator)
    classes = torch.randint(0, 7, shape, generator=generator)
    weight = torch.rand(7, generator=generator) if weighted else None
    options = {"weight": weight, "ignore_index": ignore, "reduction": reduction, "label_smoothing": smoothing}
    ours, torchs = MarginCrossEntropy(0.0, **options), torch.nn.CrossEntropyLoss(**options)
    torch.testing.assert_close(ours(logits, classes), torchs(logits, classes), equal_nan=True)


@pytest.mark.parametrize(("m", "scale"), [(0.0, 1.0), (1.5, 1.0), (4.0, 0.5)])
def test_multi_margin_is_torchs_and_its_equation(m: float, scale: float) -> None:
    loss = MultiMargin(m, scale)(ROWS, CLASSES).item()
    assert loss == pytest.approx(torch.nn.MultiMarginLoss(margin=m)(scale * ROWS, CLASSES).item())
    costs = [
        max(0.0, m - scale * (row[y] - z))
        for row, y in zip(ROWS.tolist(), CLASSES.tolist(), strict=True)
        for c, z in enumerate(row)
        if c != y
    ]
    assert loss == pytest.approx(sum(costs) / ROWS.numel())


def test_every_loss_of_the_table_can_be_built_and_named() -> None:
    """The names of the command line, the classes and the margin parameters of the table belong together."""
    for name, entry in LOSSES.items():
        spec = LossSpec.parse(entry.example)
        assert spec.name == name
        assert (spec.margin is None) == (entry.margin is None)
        loss = spec.build(2048.0)
        assert loss(ROWS, CLASSES).ndim == 0
        assert entry.margin is None or getattr(loss, entry.margin) == spec.margin


def test_a_margin_costs_and_ignored_rows_do_not() -> None:
    loss = MarginCrossEntropy(2.0, ignore_index=-1, reduction="none")
    classes = torch.tensor([0, -1, 2, 0])
    costs = loss(ROWS, classes)
    assert costs[1] == 0
    assert (costs > MarginCrossEntropy(0.0, ignore_index=-1, reduction="none")(ROWS, classes))[[0, 2, 3]].all()


def test_gradient_vanishes_once_the_margin_is_reached() -> None:
    def pull(lead: float, loss: MarginCrossEntropy | CrossEntropy) -> float:
        logits = torch.tensor([[lead, 0.0]], requires_grad=True)
        loss(logits, torch.tensor([0])).backward()
        assert isinstance(logits.grad, Tensor)
        return -logits.grad[0, 0].item()

    assert pull(60.0, CrossEntropy()) < 1e-6 < 0.5 < pull(60.0, MarginCrossEntropy(100.0))
    assert pull(130.0, MarginCrossEntropy(100.0)) < 1e-6


def test_class_probabilities_are_refused() -> None:
    with pytest.raises(TypeError, match="true class"):
        MarginCrossEntropy(1.0)(ROWS, torch.softmax(ROWS, 1))


def test_margins_as_shares_of_the_largest_output() -> None:
    """A share is of the largest output, and the margin is in scaled logits."""
    assert LossSpec.parse("mhl:b=12.5%").build(2048.0).b == 256
    assert LossSpec.parse("mcel:m=25%,scale=0.5").build(2048.0).m == 256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cel", "cross entropy"),
        ("cel:scale=0.5", "cross entropy of 0.5 x logits"),
        ("mhl:b=128", "modified hinge, b = 128"),
        ("mhl:b=12.5%", "modified hinge, b = 256"),
        ("mml:m=64", "multi-class margin, m = 64"),
        ("mcel:m=12.5%,scale=0.5", "margin cross entropy, m = 128 of 0.5 x logits"),
    ],
)
def test_specs(text: str, said: str) -> None:
    assert str(LossSpec.parse(text).build(2048.0)) == said


@pytest.mark.parametrize(
    "text", ["", "hinge", "mhl", "mhl:m=1", "mcel:m=x", "mcel:m=-1", "cel:b=2", "cel:scale=0", "cel:scale=nan"]
)
def test_specs_that_name_no_loss(text: str) -> None:
    with pytest.raises(UsageError, match="Loss"):
        LossSpec.parse(text)
