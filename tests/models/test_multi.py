import dataclasses
import json

import pytest
import torch
from torch.nn.functional import normalize

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch, UnknownModel
from geograft.models.checkpoints import load_model
from geograft.models.model import Model
from geograft.models.multi import MultiEncoder, MultiSettings, SensorView, bake, load_multi, save_multi
from geograft.models.stems import SensorStem
from geograft.sensors import get_sensor

FINE = SensorStem("fine", ("green", "red", "nir"), gsd=1.0, image_size=16, patch_size=4)
COARSE = SensorStem("coarse", ("red", "swir"), gsd=10.0, image_size=12, patch_size=2)
SHAPE = {"dim": 16, "width": 24, "depth": 2, "heads": 2}


def make_multi(*, seed=0, awake=True, sensors=(FINE, COARSE), **changes):
    """An encoder of two sensors; `awake` gives the parts that depend on scale weights that are not zero."""
    torch.manual_seed(seed)
    encoder = MultiEncoder(MultiSettings(sensors=sensors, **{**SHAPE, **changes})).eval()
    if awake:
        with torch.no_grad():
            encoder.embeddings.positions.metric.weight.normal_(std=0.3)
            encoder.embeddings.positions.scale[2].weight.normal_(std=0.3)
    return encoder


def chips_of(stem, count=2, seed=1):
    return torch.randn(count, len(stem.bands), stem.image_size, stem.image_size, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("stem", [FINE, COARSE], ids=lambda stem: stem.name)
def test_a_baked_encoder_says_what_the_whole_one_says(stem):
    encoder, chips = make_multi(), chips_of(stem)
    plain = encoder.at(stem.name)
    with torch.inference_mode():
        for level in ("image", "pixel"):
            expected = encoder(chips, sensor=stem.name, level=level)
            torch.testing.assert_close(plain(chips, level=level), expected, atol=1e-6, rtol=0)
        dense = encoder.tokens(chips, sensor=stem.name, level="image")
        torch.testing.assert_close(plain.tokens(chips, level="image"), dense, atol=1e-6, rtol=0)
    assert plain.settings.bands == stem.bands
    assert dense.shape == (2, 16, stem.grid, stem.grid)


def test_baking_takes_nothing_from_the_draw_of_a_training():
    encoder = make_multi()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encoder.at("fine")
    assert torch.equal(torch.rand(3), expected)


def test_a_baked_encoder_is_a_copy():
    encoder, chips = make_multi(), chips_of(FINE)
    before = encoder.at("fine").embed(chips)
    plain = encoder.at("fine")
    with torch.no_grad():
        for value in encoder.parameters():
            value.zero_()
    assert torch.equal(plain.embed(chips), before)


def test_the_optimiser_knows_what_lies_below_the_transformer():
    from geograft.training.schedule import freeze_layers, make_optimiser

    encoder = make_multi()
    decayed = make_optimiser(encoder, lr=1e-3, weight_decay=0.1).param_groups[0]["params"]
    positions = encoder.embeddings.positions.position_embedding
    assert not any(value is positions for value in decayed)
    freeze_layers(encoder, 1)
    assert not any(value.requires_grad for value in encoder.embeddings.parameters())
    assert all(
        value.requires_grad
        for value in encoder.body.satellite_image_backbone.vision_model.encoder.layers[1].parameters()
    )


def test_another_ground_sample_distance_changes_the_positions_only():
    encoder = make_multi()
    one, two = encoder.at("fine").state_dict(), encoder.at("fine", gsd=2.5).state_dict()
    changed = {key for key in one if not torch.equal(one[key], two[key])}
    assert changed == {"satellite_image_backbone.vision_model.embeddings.position_embedding.weight"}
    again = encoder.at("fine", gsd=1.0).state_dict()
    assert all(torch.equal(one[key], again[key]) for key in one)


def test_before_it_learns_scale_an_encoder_does_not_depend_on_it():
    encoder = make_multi(awake=False)
    chips = chips_of(FINE)
    assert torch.equal(encoder.at("fine").embed(chips), encoder.at("fine", gsd=7.0).embed(chips))


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_it_begins_as_the_encoder_that_it_starts_from(make_encoder, level):
    plain = make_encoder()
    encoder = make_multi(seed=9)
    encoder.start_from(plain)
    chips = chips_of(FINE)
    with torch.inference_mode():
        found = encoder(chips, sensor="fine", level=level)
        torch.testing.assert_close(found, plain(chips, level=level), atol=1e-6, rtol=0)
        assert encoder(chips_of(COARSE), sensor="coarse", level=level).isfinite().all()


def test_an_encoder_of_another_transformer_is_no_start(make_encoder):
    with pytest.raises(CheckpointMismatch, match="'heads': 3"):
        make_multi().start_from(make_encoder(heads=3))
    with pytest.raises(CheckpointMismatch, match="quick_gelu"):
        make_multi().start_from(make_encoder(activation="quick_gelu"))


def test_both_sensors_teach_the_shared_transformer_and_the_scale():
    encoder = make_multi(awake=False).train()
    target = normalize(torch.randn(16), dim=0)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        found = [encoder(chips_of(stem, 4), sensor=stem.name) for stem in (FINE, COARSE)]
        loss = sum((1 - vectors @ target).mean() for vectors in found)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4
    assert all(value.grad is not None for name, value in encoder.named_parameters() if "projector" not in name)
    assert encoder.embeddings.positions.metric.weight.abs().sum() > 0
    assert encoder.embeddings.positions.scale[2].weight.abs().sum() > 0


def test_autocast_changes_nothing_between_the_whole_and_the_baked():
    encoder, chips = make_multi(), chips_of(COARSE)
    plain = encoder.at("coarse")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = encoder(chips, sensor="coarse")
        torch.testing.assert_close(plain(chips), expected, atol=1e-6, rtol=0)


def test_an_unknown_sensor_is_named_with_the_known_ones():
    for ask in (lambda: make_multi().at("radar"), lambda: make_multi().embed(chips_of(FINE), sensor="radar")):
        with pytest.raises(ModelMismatch, match="radar, only fine, coarse"):
            ask()


def test_chips_of_another_sensor_are_refused():
    with pytest.raises(ModelMismatch, match=r"\(N, 2, 12, 12\).*red, swir"):
        make_multi().embed(chips_of(FINE), sensor="coarse")


@pytest.mark.parametrize("gsd", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ground_sample_distance_that_is_none_is_refused(gsd):
    with pytest.raises(BadSetting, match="fine"):
        make_multi().at("fine", gsd=gsd)


@pytest.mark.parametrize(
    "change", [{"sensors": ()}, {"sensors": (FINE, FINE)}, {"width": 22}, {"heads": 5}, {"unit": -1.0}]
)
def test_a_shape_that_cannot_be_built_is_refused(change):
    with pytest.raises(BadSetting):
        MultiSettings(**{"sensors": (FINE,), **SHAPE, **change})


def test_a_patch_of_the_first_sensor_is_the_unit_where_none_is_given():
    assert MultiSettings(sensors=(COARSE, FINE), **SHAPE).unit == 20.0


def test_settings_survive_their_dictionary(make_encoder):
    settings = MultiSettings.like(make_encoder().settings, [FINE, COARSE])
    assert MultiSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    for broken in ({**settings.to_dict(), "colour": 1}, {**settings.to_dict(), "sensors": [{"name": "fine"}]}):
        with pytest.raises(CheckpointMismatch, match="several sensors"):
            MultiSettings.from_dict(broken)


def test_a_stem_is_made_of_a_sensor(small_sensor):
    stem = SensorStem.of(small_sensor, image_size=16, patch_size=4)
    assert (stem.name, stem.bands, stem.gsd, stem.grid) == ("small", small_sensor.bands, 2.0, 4)
    assert SensorStem.of(small_sensor, image_size=16, patch_size=4, gsd=0.5).gsd == 0.5


def test_a_view_of_one_sensor_learns_for_the_whole():
    whole, chips = make_multi(), chips_of(COARSE)
    view = SensorView(whole, "coarse")
    with torch.no_grad():
        assert torch.equal(view(chips, level="pixel"), whole.tokens(chips, sensor="coarse"))
        assert torch.equal(view(chips), whole.embed(chips, sensor="coarse"))
        assert torch.equal(view.tokens(chips, level="image"), whole.tokens(chips, sensor="coarse", level="image"))
        for found in (view(chips, level="both"), whole(chips, sensor="coarse", level="both")):
            assert torch.equal(found[0], view.embed(chips))
            assert torch.equal(found[1], view.tokens(chips))
    assert view.settings == whole.at("coarse").settings
    view.embed(chips)[0, 0].backward()
    assert whole.embeddings.kernels[1].grad.abs().sum() > 0
    assert whole.embeddings.kernels[0].grad is None
    with pytest.raises(ModelMismatch, match="radar"):
        SensorView(whole, "radar")


# --- several sensors and one that knows no scale ------------------------------------------------------------


# --- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    return save_multi({"image": make_multi(), "pixel": make_multi(seed=1)}, tmp_path / "joint")


def test_a_saved_encoder_goes_on_as_it_was(saved):
    found = load_multi(saved)
    assert list(found) == ["image", "pixel"]
    for seed, encoder in enumerate(found.values()):
        expected = make_multi(seed=seed).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in encoder.state_dict().items())
        assert encoder.settings == make_multi().settings


def test_an_encoder_of_both_levels_is_stored_and_baked_once(tmp_path):
    encoder = make_multi()
    folder = save_multi({"image": encoder, "pixel": encoder}, tmp_path / "both")
    found = load_multi(folder)
    assert found["image"] is found["pixel"]
    baked = bake(found, "coarse")
    assert baked["image"] is baked["pixel"]
    assert (folder / "model.safetensors").stat().st_size < 5.5 * sum(v.numel() for v in encoder.parameters())


def test_a_baked_model_is_a_model_like_any_other(saved, small_sensor, teacher, tmp_path, chips):
    from geograft.models.checkpoints import load_model, save_model

    sensor = dataclasses.replace(small_sensor, name="fine")
    model = Model(bake(load_multi(saved), "fine"), sensor=sensor, teacher=teacher, gsd=1.0)
    again = load_model(save_model(model, tmp_path / "model"))
    assert again.levels == ("image", "pixel")
    assert (again.embed_chips(chips) * model.embed_chips(chips)).sum(axis=1).min() > 0.999


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(UnknownModel, match="nowhere"):
        load_multi(tmp_path / "nowhere")


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "format"),
        ({"architecture": "other"}, "several sensors"),
        ({"fingerprint": "0"}, "belong together"),
        ({"levels": ["image"]}, "pixel"),
        ({"levels": ["image", "object"]}, "no levels"),
        ({"levels": "pixel"}, "no levels"),
        ({"encoders": []}, "no levels"),
        ({"encoders": {"image": {}, "pixel": {}}}, "several sensors"),
    ],
)
def test_a_folder_of_something_else_is_refused(saved, change, words):
    change_config(saved, **change)
    with pytest.raises(CheckpointMismatch, match=words):
        load_multi(saved)


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", b"[1]"), ("config.json", b"{"), ("model.safetensors", b"")]
)
def test_damaged_files_are_refused(saved, name, content):
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointMismatch, match="copy the folder again"):
        load_multi(saved)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    encoder = make_multi()
    with torch.no_grad():
        encoder.embeddings.class_embedding[0] = float("nan")
    with pytest.raises(CheckpointMismatch, match="class_embedding"):
        save_multi({"image": encoder}, tmp_path / "joint")
    assert not (tmp_path / "joint").exists()


def test_stems_of_the_known_sensors_fit_the_packages_specifications():
    stems = [
        SensorStem.of(get_sensor("world-1m"), image_size=64, patch_size=8),
        SensorStem.of(get_sensor("world-10m"), image_size=32, patch_size=4),
    ]
    settings = MultiSettings(sensors=tuple(stems), **{**SHAPE, "width": 32})
    assert settings.plain("world-10m").grid == 8
    assert settings.unit == 8.0


def test_the_folder_of_all_sensors_is_no_model_and_says_where_they_are(tmp_path):
    folder = save_multi({"image": make_multi()}, tmp_path / "joint")
    with pytest.raises(CheckpointMismatch, match="beside it"):
        load_model(folder)
