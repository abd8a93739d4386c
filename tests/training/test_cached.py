import contextlib

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.training.cached import backward
from geograft.training.devices import precision

SHAPE = EncoderSettings(("red", "nir"), dim=8, image_size=16, patch_size=8, width=16, depth=2, heads=2)


def make_net(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.Dropout(dropout), nn.Tanh(), nn.Linear(12, 4)).double()


def info_nce(found, photos):
    return nn.functional.cross_entropy(normalize(found, dim=1) @ photos.T / 0.07, torch.arange(len(found)))


def gradients(model, encode, compare, rows, **options):
    model.zero_grad()
    loss = backward(encode, compare, rows, **options)
    return loss, {name: weight.grad for name, weight in model.named_parameters()}


def assert_same(found, wanted, tolerance=1e-12):
    assert float(found[0]) == pytest.approx(float(wanted[0].detach()), abs=tolerance)
    for name, gradient in wanted[1].items():
        if gradient is None:
            assert found[1][name] is None
        else:
            torch.testing.assert_close(found[1][name], gradient, atol=tolerance, rtol=0)


@hypothesis.given(rows=st.integers(1, 9), chunk=st.integers(1, 10), scale=st.sampled_from([1.0, 4.0]))
def test_slices_give_the_gradient_of_the_whole_batch(rows, chunk, scale):
    model = make_net()
    x = torch.randn(rows, 6, dtype=torch.float64)
    photos = normalize(torch.randn(rows, 4, dtype=torch.float64), dim=1)
    model.zero_grad()
    loss = info_nce(model(x), photos)
    (loss * scale).backward()
    wanted = loss, {name: weight.grad.clone() for name, weight in model.named_parameters()}
    given = gradients(model, lambda part: model(x[part]), lambda f: info_nce(f, photos), rows, chunk=chunk, scale=scale)
    assert_same(given, wanted)


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_a_satellite_encoder_learns_the_same_in_slices(level):
    torch.manual_seed(0)
    model = SatelliteEncoder(SHAPE).double()
    chips = torch.randn(7, 2, 16, 16, dtype=torch.float64)
    photos = normalize(torch.randn(7, 8, dtype=torch.float64), dim=1)

    def compare(found):
        return info_nce(found if level == "image" else found.flatten(2).mean(2), photos)

    runs = [gradients(model, lambda p: model(chips[p], level=level), compare, 7, chunk=c) for c in (None, 3)]
    assert_same(runs[1], runs[0])
    unused = {name for name, gradient in runs[1][1].items() if gradient is None}
    assert any(name.startswith("projector") for name in unused) == (level == "image")


def test_several_outputs_may_be_found_and_one_left_unused():
    model, photos = make_net(), normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    unused = nn.Linear(6, 2).double()
    x = torch.randn(6, 6, dtype=torch.float64)

    def encode(part):
        found = model(x[part])
        return found, found**2, unused(x[part]), found.argmax(1)

    runs = []
    for chunk in (None, 4):
        runs.append(gradients(model, encode, lambda f: info_nce(f[0], photos) + f[1][f[3] == 1].sum(), 6, chunk=chunk))
        assert unused.weight.grad is None
    assert_same(runs[1], runs[0])


def test_random_choices_are_the_same_both_times():
    """Naive: the loss of the very masks that the first pass drew, by autograd over the slices at once."""
    model = make_net(dropout=0.5)
    x, photos = torch.randn(6, 6, dtype=torch.float64), normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    torch.manual_seed(5)
    loss = info_nce(torch.cat([model(x[:4]), model(x[4:])]), photos)
    after = torch.rand(1)
    model.zero_grad()
    loss.backward()
    wanted = loss, {name: weight.grad.clone() for name, weight in model.named_parameters()}
    torch.manual_seed(5)
    found = gradients(model, lambda part: model(x[part]), lambda f: info_nce(f, photos), 6, chunk=4)
    assert_same(found, wanted)
    assert torch.equal(torch.rand(1), after)


def test_bfloat16_slices_learn_too():
    torch.manual_seed(0)
    model = SatelliteEncoder(SHAPE)
    chips, photos = torch.randn(6, 2, 16, 16), normalize(torch.randn(6, 8), dim=1)

    def encode(part):
        with precision(torch.device("cpu"), bf16=True):
            return model(chips[part])

    whole, sliced = (
        gradients(model, encode, lambda f: info_nce(f.float(), photos), 6, chunk=chunk)[1] for chunk in (None, 2)
    )
    for name, gradient in whole.items():
        if gradient is not None:
            assert float((sliced[name] - gradient).norm()) <= 0.05 * float(gradient.norm()) + 1e-3, name


def test_processes_meet_in_the_last_slice_only():
    model, seen, inside = make_net(), [], []

    @contextlib.contextmanager
    def apart():
        inside.append(True)
        yield
        inside.pop()

    x, photos = torch.randn(5, 6, dtype=torch.float64), normalize(torch.randn(5, 4, dtype=torch.float64), dim=1)
    model[0].weight.register_hook(lambda _: seen.append(bool(inside)))
    backward(lambda part: model(x[part]), lambda f: info_nce(f, photos), 5, chunk=2, apart=apart)
    assert seen == [True, True, False]
