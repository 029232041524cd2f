"""Losses against closed forms and torch's own; loss SPECs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from weakcell.host.train.loss_spec import LOSSES, LossSpec, name_stored_loss
from weakcell.host.train.losses import CrossEntropy, MarginCrossEntropy, ModifiedHinge, MultiMargin, UnclampedMarginCrossEntropy
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


def test_modified_hinge_divided_by_b() -> None:
    """As in the author's framework. The gradient is divided as well."""
    logits = ROWS.clone().requires_grad_()
    ModifiedHinge(8.0, divide=True)(logits, CLASSES).backward()
    assert ModifiedHinge(8.0, divide=True)(ROWS, CLASSES).item() == pytest.approx(ModifiedHinge(8.0)(ROWS, CLASSES).item() / 8)
    assert logits.grad.abs().max().item() == pytest.approx(1 / (12 * 8))


@pytest.mark.parametrize(("m", "limit", "scale"), [(0.0, 100.0, 1.0), (32.0, 100.0, 1.0), (3.0, 5.0, 1.0), (32.0, 100.0, 40.0)])
def test_mcel_and_its_gradient_are_the_published_equations(m: float, limit: float, scale: float) -> None:
    """Equations 7 to 10 of arXiv 2603.05048, and their derivative by hand, in NumPy and float64."""
    z, y = ROWS.numpy().astype(np.float64), CLASSES.numpy()
    true_class = np.eye(3)[y]
    clamped = limit * np.tanh(scale * z / limit)
    lowered = clamped - m * true_class
    softmax = np.exp(lowered) / np.exp(lowered).sum(1, keepdims=True)
    slope = 1 - (clamped / limit) ** 2
    logits = ROWS.double().requires_grad_()
    loss = MarginCrossEntropy(m, L=limit, scale=scale)(logits, CLASSES)
    loss.backward()
    assert loss.item() == pytest.approx(-np.log(softmax[np.arange(4), y]).mean(), rel=1e-12)
    assert logits.grad.numpy() == pytest.approx((softmax - true_class) * slope * scale / 4, rel=1e-9, abs=1e-15)


def test_mcel_bounds_the_lead_and_the_unclamped_form_does_not() -> None:
    """Ever larger logits satisfy any margin of the rejected form. A clamped lead ends at 2L: below m − 2L no loss can fall."""
    logits, classes = torch.tensor([[1e6, -1e6]]), torch.tensor([0])
    assert UnclampedMarginCrossEntropy(300.0)(logits, classes).item() == 0
    assert MarginCrossEntropy(300.0, L=100.0)(logits, classes).item() == pytest.approx(100.0)
    assert MarginCrossEntropy(150.0, L=100.0)(logits, classes).item() == pytest.approx(0, abs=1e-9)


def test_mcel_is_cross_entropy_in_the_limit_of_a_wide_clamp() -> None:
    ours = MarginCrossEntropy(0.0, L=1e4)(ROWS.double(), CLASSES)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(ROWS.double(), CLASSES), rtol=0, atol=1e-6)


def test_unclamped_margin_cross_entropy_is_its_equation() -> None:
    m, scale = 1.5, 0.7
    costs = []
    for row, y in zip(ROWS.tolist(), CLASSES.tolist(), strict=True):
        terms = [math.exp(scale * z - (m if c == y else 0)) for c, z in enumerate(row)]
        costs.append(-math.log(terms[y] / sum(terms)))
    assert UnclampedMarginCrossEntropy(m, scale)(ROWS, CLASSES).item() == pytest.approx(sum(costs) / 4, rel=1e-5)


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
    ours, torchs = UnclampedMarginCrossEntropy(0.0, **options), torch.nn.CrossEntropyLoss(**options)
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
    loss = UnclampedMarginCrossEntropy(2.0, ignore_index=-1, reduction="none")
    classes = torch.tensor([0, -1, 2, 0])
    costs = loss(ROWS, classes)
    assert costs[1] == 0
    assert (costs > UnclampedMarginCrossEntropy(0.0, ignore_index=-1, reduction="none")(ROWS, classes))[[0, 2, 3]].all()


def test_gradient_vanishes_once_the_margin_is_reached() -> None:
    def pull(lead: float, loss: torch.nn.Module) -> float:
        logits = torch.tensor([[lead, 0.0]], requires_grad=True)
        loss(logits, torch.tensor([0])).backward()
        assert isinstance(logits.grad, Tensor)
        return -logits.grad[0, 0].item()

    assert pull(60.0, CrossEntropy()) < 1e-6 < 0.5 < pull(60.0, UnclampedMarginCrossEntropy(100.0))
    assert pull(130.0, UnclampedMarginCrossEntropy(100.0)) < 1e-6


def test_class_probabilities_are_refused() -> None:
    with pytest.raises(TypeError, match="true class"):
        MarginCrossEntropy(1.0)(ROWS, torch.softmax(ROWS, 1))


def test_margins_as_shares_of_the_largest_output() -> None:
    """A share is of the largest output, and the margin is in scaled logits."""
    assert LossSpec.parse("mhl:b=12.5%").build(2048.0).b == 256
    assert LossSpec.parse("margin-ce:m=25%,scale=0.5").build(2048.0).m == 256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cel", "cross entropy"),
        ("cel:scale=0.5", "cross entropy of 0.5 x logits"),
        ("mhl:b=128", "modified hinge, b = 128"),
        ("mhl:b=12.5%", "modified hinge, b = 256"),
        ("mml:m=64", "multi-class margin, m = 64"),
        ("mhl:b=128,divide=b", "modified hinge, b = 128, divided by b"),
        ("margin-ce:m=12.5%,scale=0.5", "unclamped margin cross entropy, m = 128 of 0.5 x logits"),
        ("mcel:m=32", "MCEL, m = 32, L = 100, RLS = 16 %"),
        ("mcel:m=8,L=50,scale=0.5", "MCEL, m = 8, L = 50, RLS = 8 % of 0.5 x logits"),
        ("mcel:rls=16%", "MCEL, m = 32, L = 100, RLS = 16 %"),
        ("mcel:L=50,rls=8%", "MCEL, m = 8, L = 50, RLS = 8 %"),
    ],
)
def test_specs(text: str, said: str) -> None:
    assert str(LossSpec.parse(text).build(2048.0)) == said


@pytest.mark.parametrize(
    "text",
    [
        "", "hinge", "mhl", "mhl:m=1", "mcel:m=x", "mcel:m=-1", "cel:b=2", "cel:scale=0", "cel:scale=nan", "mcel", "mcel:L=100",
        "mcel:m=32,rls=16%", "mcel:m=12.5%", "mcel:rls=16", "mcel:m=32,L=0", "mcel:m=32,L=inf", "mcel:m=1,m=2",
        "margin-ce:m=1,L=100", "mhl:b=128,divide=2", "mhl:b=0,divide=b", "cel:divide=b",
    ],
)  # fmt: skip
def test_specs_that_name_no_loss(text: str) -> None:
    with pytest.raises(UsageError, match="Loss"):
        LossSpec.parse(text)


@pytest.mark.parametrize("text", ["cel", "mhl:b=6.25%", "mcel:m=1,L=9", "margin-ce:m=1,scale=0.0220970869", "mhl:b=8,divide=b"])
def test_a_written_spec_parses_to_itself(text: str) -> None:
    assert LossSpec.parse(text).text == text


def test_rls_of_a_spec_becomes_m() -> None:
    assert LossSpec.parse("mcel:rls=16%").text == LossSpec.parse("mcel:m=32").text == "mcel:m=32,L=100"
    assert LossSpec.parse("mcel:m=32,L=50").rls == 0.32
    assert LossSpec.parse("margin-ce:m=32").rls is None


def test_records_of_the_unclamped_form_are_not_read_as_mcel() -> None:
    """Earlier versions wrote `mcel` for the unclamped form, and never an L."""
    assert name_stored_loss("mcel:m=25%,scale=0.5") == "margin-ce:m=25%,scale=0.5"
    assert name_stored_loss("mcel:m=32,L=100") == "mcel:m=32,L=100"
    assert name_stored_loss("mhl:b=128") == "mhl:b=128"
