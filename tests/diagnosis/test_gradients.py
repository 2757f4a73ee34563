"""A gradient is followed through a part: each way of losing it is found, with the line of code that does it."""

from functools import partial

import pytest
import torch

from tests.worlds import cut
from utils.diagnosis.gradients import Trace, computed, follow
from utils.errors import InputError

X = torch.linspace(-0.9, 0.9, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)  # both signs, and no kink


def followed(name):
    """The flow through a class of tests/worlds/cut.py, and the places it names as text."""
    flow = follow(getattr(cut, name)(sigma=0.05), X)
    return flow, [str(place) for place in flow.lost]


@pytest.mark.filterwarnings("ignore:.*autograd kernel was not registered")
@pytest.mark.parametrize("name", cut.CUTS)
def test_each_cut_is_found_with_its_line(name):
    flow, lost = followed(name)
    assert flow.state == "cut" and flow.gradient is None
    assert lost == [f"{cut.CUTS[name]} at {cut.line_of(name)}"]


@pytest.mark.parametrize("name", cut.ZEROS)
def test_a_gradient_that_is_zero_everywhere_is_found_with_its_line(name):
    flow, lost = followed(name)
    assert flow.state == "zero" and not flow.gradient.any()
    assert lost == [f"{cut.ZEROS[name]} at {cut.line_of(name)}"]


@pytest.mark.parametrize("name", cut.NON_FINITE)
def test_a_gradient_that_is_not_finite_is_found_with_its_line(name):
    flow, lost = followed(name)
    assert flow.state == "non-finite"
    assert lost == [f"{cut.NON_FINITE[name]} at {cut.line_of(name)}"]


def test_two_cuts_on_two_ways_are_both_named():
    def part(x):
        return x[:, :1].detach() + x[:, 1:2].data + (x[:, 2:] > 0)

    assert [place.why for place in follow(part, X).lost] == [".detach()", ".data", "gt() to bool"]


def test_what_flows_is_the_gradient_of_autograd_and_has_no_place():
    weights = torch.arange(X.numel()).reshape(X.shape).sin()
    flow = follow(lambda x: x.sin() * 2, X, lambda result: weights)
    assert flow.state == "flows" and flow.lost == ()
    torch.testing.assert_close(flow.gradient, 2 * weights * X.cos())
    torch.testing.assert_close(flow.result, 2 * X.sin())


def test_a_way_that_is_lost_beside_one_that_flows_is_known():
    flow, lost = followed("HalfCut")
    assert flow.state == "flows" and lost == [f".detach() at {cut.line_of('HalfCut')}"]


def test_masks_and_numbers_of_constants_are_no_cut():
    def part(x):
        kept = torch.where(torch.eye(16).bool(), x, 0.0)
        return kept * torch.tensor([3.0]).item() + torch.zeros_like(x).detach()

    assert follow(part, X)[::3] == ("flows", ())


def test_a_function_with_a_backward_of_its_own_is_no_cut():
    flow, lost = followed("WrongBackward")
    assert flow.state == "flows" and lost == []


def test_a_function_is_known_however_pytorch_calls_its_forward(monkeypatch):
    """From 2.14 on `apply` is no Python function any more."""
    plain = getattr(torch.autograd.Function.apply, "__func__", None)

    class Apply:
        def __get__(self, instance, kind):
            return partial(plain, kind)

    if plain is not None:
        monkeypatch.setattr(torch.autograd.Function, "apply", Apply())
    flow, lost = followed("WrongBackward")
    assert flow.state == "flows" and lost == []


def test_a_fault_of_the_tracer_is_not_blamed_on_the_part(monkeypatch):
    def fails(*arguments):
        raise AttributeError("a detail of PyTorch is gone")

    monkeypatch.setattr(Trace, "_note", fails)
    with pytest.raises(InputError, match="the gradient check itself fails with torch .*a detail of PyTorch is gone"):
        follow(lambda x: 2 * x, X)


def test_behind_a_function_with_a_backward_of_its_own_cuts_are_found_still():
    flow = follow(lambda x: cut.WrongDerivative.apply(x).detach(), X)
    assert flow.state == "cut" and [place.why for place in flow.lost] == [".detach()"]


def test_inside_a_library_the_line_that_calls_it_is_named_beside_the_library_s():
    import scipy.ndimage

    flow = follow(lambda x: torch.from_numpy(scipy.ndimage.gaussian_filter(x.detach(), 1)), X)
    assert flow.state == "cut"
    place = str(flow.lost[-1])
    assert "conversion to NumPy at tests/diagnosis/test_gradients.py:" in place and "(scipy/ndimage/" in place
    assert flow.lost[-1].meant and not flow.lost[0].meant


def test_a_part_that_fails_is_named_with_its_line():
    def part(x):
        return x @ torch.zeros(3, 3)

    for flow in (follow(part, X), computed(part, X)):
        assert flow.state == "fails" and flow.result is None
        (place,) = map(str, flow.lost)
        assert place.startswith("RuntimeError: ") and place.endswith(": return x @ torch.zeros(3, 3)")


@pytest.mark.parametrize("error", [InputError("a=b: wrong; mend it"), torch.OutOfMemoryError("CUDA out of memory")])
def test_what_is_no_fault_of_the_part_is_raised(error):
    def part(x):
        raise error

    with pytest.raises(type(error)):
        follow(part, X)


def test_gradients_that_a_part_takes_itself_are_seen():
    def take(value):
        with torch.enable_grad():
            z = X.detach().requires_grad_()
            return torch.autograd.grad(value(z).sum(), z)

    for value, state in ((torch.sin, "flows"), (torch.round, "zero"), (lambda z: (0 * z).sqrt(), "non-finite")):
        with torch.no_grad(), Trace() as trace:
            take(value)
        assert trace.taken == [state]
    with pytest.raises(RuntimeError), torch.no_grad(), Trace() as trace:
        take(lambda z: z.detach().sin())
    assert [place.why for place in trace.refused] == [".detach()"]
