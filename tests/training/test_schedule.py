import itertools

import pytest
import torch

from geograft.errors import BadSetting
from geograft.models.satellite import EncoderSettings, SatelliteEncoder
from geograft.training.schedule import Average, freeze_layers, make_optimiser, set_rate, warmup_cosine


def test_the_rate_rises_in_a_line_and_falls_to_nothing():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == pytest.approx(1)
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.001


def test_a_run_of_one_step_still_moves():
    assert warmup_cosine(0, 1, 0.05) == 1


def test_norms_and_biases_do_not_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    decayed, kept = make_optimiser(model, lr=1e-3, weight_decay=0.1).param_groups
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(4, 3)]
    assert decayed["weight_decay"] == 0.1
    assert [tuple(weight.shape) for weight in kept["params"]] == [(4,), (4,), (4,)]
    assert kept["weight_decay"] == 0


SHAPE = EncoderSettings(("red", "nir"), dim=8, image_size=16, patch_size=8, width=16, depth=3, heads=2)


def scales(optimiser, model):
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {names[id(w)]: group["scale"] for group in optimiser.param_groups for w in group["params"]}


def test_lower_layers_learn_slower():
    model = SatelliteEncoder(SHAPE)
    optimiser = make_optimiser(model, lr=0.1, weight_decay=0.1, layer_decay=0.5)
    found = scales(optimiser, model)
    vision = "satellite_image_backbone.vision_model"
    assert found[f"{vision}.embeddings.patch_embedding.weight"] == 0.5**4
    assert found[f"{vision}.embeddings.class_embedding"] == 0.5**4
    assert found[f"{vision}.pre_layrnorm.weight"] == 0.5**4
    for block in range(3):
        assert found[f"{vision}.encoder.layers.{block}.mlp.fc1.weight"] == 0.5 ** (3 - block)
    assert found[f"{vision}.post_layernorm.weight"] == found["projector.1.weight"] == 1
    assert len(found) == len(list(model.parameters()))
    set_rate(optimiser, 0.2)
    assert sorted({group["lr"] for group in optimiser.param_groups}) == pytest.approx([0.0125, 0.025, 0.05, 0.1, 0.2])


def test_frozen_blocks_and_embeddings_want_no_gradient():
    model = SatelliteEncoder(SHAPE)
    freeze_layers(model, 2)
    still = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert all(".embeddings." in n or "pre_layrnorm" in n or ".layers.0." in n or ".layers.1." in n for n in still)
    assert len(still) == 3 + 2 + 2 * 16
    assert set(scales(make_optimiser(model, lr=1, weight_decay=0), model)).isdisjoint(still)
    freeze_layers(model, 0)
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == still


def test_a_model_without_blocks_is_named():
    plain = torch.nn.Linear(2, 2)
    with pytest.raises(BadSetting, match=r"freeze needs .* named weight, bias"):
        freeze_layers(plain, 1)
    with pytest.raises(BadSetting, match="layer_decay needs"):
        make_optimiser(plain, lr=1, weight_decay=0, layer_decay=0.5)
    with pytest.raises(BadSetting, match="freeze is 4, but the model has 3 blocks"):
        freeze_layers(SatelliteEncoder(SHAPE), 4)


def test_the_average_is_the_written_out_sum():
    model = torch.nn.Linear(1, 1, bias=False).double()
    average, expected = Average(model, 0.9), model.weight.item()
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(step**0.5)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step**0.5
    assert average.weights["weight"].item() == pytest.approx(expected)
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == pytest.approx(199**0.5)
