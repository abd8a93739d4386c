import numpy as np
import pytest
import torch
from torch import nn

from geograft.errors import BadSetting, ExportFailed, MissingExtra, ModelMismatch
from geograft.models.inference import backends, graphs
from geograft.models.inference.backends import Machine, candidates, open_backend
from geograft.models.inference.eager import TorchBackend
from geograft.models.inference.parity import measure_parity, probe_chips
from geograft.models.model import Model

EVERYTHING = frozenset({"openvino", "nncf", "onnx", "onnxruntime"})
ONNX = frozenset({"onnx", "onnxruntime"})


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """float32 everywhere, so that graphs and PyTorch can be held against each other."""
    monkeypatch.setattr("geograft.models.numerics.has_bfloat16", lambda _device="cpu": False)
    monkeypatch.setattr(backends, "has_bfloat16", lambda _device="cpu": False)


@pytest.fixture
def calibration():
    """Native values of chips, enough for int8."""
    return np.random.default_rng(2).integers(1, 1000, (24, 3, 16, 16)).astype(np.uint16)


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_graph_gives_the_models_vectors_for_any_number_of_chips(make_model, chips, name):
    pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[name])
    model = make_model()
    expected = [model.embed_chips(chips), model.dense(chips), model.dense(chips, level="image")]
    assert model.use_backend(name) == model.backend == name
    for count in (7, 1, 2):
        found = [model.embed_chips(chips[:count]), model.dense(chips[:count])]
        for vectors, wanted in zip(found, expected, strict=False):
            np.testing.assert_allclose(vectors, wanted[:count], atol=2e-5)
    np.testing.assert_allclose(model.dense(chips, level="image"), expected[2], atol=2e-5)
    assert model.embed_chips(chips[:0]).shape == (0, 16)
    with pytest.raises(ModelMismatch, match=r"\(N, 3, 16, 16\)"):
        model.embed_chips(np.zeros((1, 3, 20, 20), np.uint16))


def test_an_encoder_of_both_levels_is_one_graph(make_encoder, small_sensor, teacher, chips):
    pytest.importorskip("onnxruntime")
    encoder = make_encoder()
    model = Model({"image": encoder, "pixel": encoder}, sensor=small_sensor, teacher=teacher)
    expected = model.embed_chips(chips), model.dense(chips)
    backend = open_backend(model, "onnx")
    assert set(backend.runners) == {"joint"}
    model.use_backend("onnx")
    np.testing.assert_allclose(model.embed_chips(chips), expected[0], atol=2e-5)
    np.testing.assert_allclose(model.dense(chips), expected[1], atol=2e-5)


def test_a_siglip_runs_as_a_graph(small_sensor, teacher, chips):
    pytest.importorskip("openvino")
    from geograft.models.rgb import SiglipEncoder, SiglipSettings

    torch.manual_seed(0)
    shape = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "hidden": 20}
    encoder = SiglipEncoder(SiglipSettings(bands=small_sensor.bands, **shape)).eval()
    model = Model({"image": encoder}, sensor=small_sensor, teacher=teacher)
    expected = model.embed_chips(chips), model.dense(chips, level="image")
    model.use_backend("openvino")
    np.testing.assert_allclose(model.embed_chips(chips), expected[0], atol=2e-5)
    np.testing.assert_allclose(model.dense(chips, level="image"), expected[1], atol=2e-5)


@pytest.mark.parametrize("name", ["openvino-int8", "onnx-int8"])
def test_int8_stays_near_the_models_vectors(make_model, chips, calibration, name):
    pytest.importorskip("nncf" if "openvino" in name else "onnxruntime")
    model = make_model(levels=("image",))
    expected = model.embed_chips(chips)
    model.use_backend(name, calibration=calibration)
    cosines = (model.embed_chips(chips) * expected).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.max() < 1 - 1e-7  # it is another arithmetic indeed


def test_dynamic_int8_of_onnx_needs_no_chips(make_model, chips):
    pytest.importorskip("onnxruntime")
    model = make_model(levels=("image",))
    expected = model.embed_chips(chips)
    model.use_backend("onnx-int8")
    assert (model.embed_chips(chips) * expected).sum(axis=1).min() > 0.99


def test_int8_without_chips_says_what_it_needs(make_model):
    pytest.importorskip("nncf")
    with pytest.raises(BadSetting, match="int8 needs chips"):
        make_model().use_backend("openvino-int8")


def test_an_unknown_backend_lists_the_known_ones(make_model):
    with pytest.raises(BadSetting, match="auto, torch, torch-fp32"):
        make_model().use_backend("tensorrt")


@pytest.mark.parametrize(("name", "extra"), [("openvino", "openvino"), ("onnx", "onnx"), ("onnx-int8", "onnx")])
def test_a_missing_package_names_its_extra(make_model, monkeypatch, name, extra):
    monkeypatch.setattr(graphs, "installed", lambda _package: False)
    with pytest.raises(MissingExtra, match=rf"geograft\[{extra}\]"):
        make_model().use_backend(name)


# --- the choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "calibrated", "expected"),
    [
        (Machine(gpu=True, bf16=True, int8=True, packages=EVERYTHING), True, ("torch",)),
        (
            Machine(gpu=False, bf16=True, int8=True, packages=EVERYTHING),
            True,
            ("openvino-int8", "openvino", "torch"),
        ),
        (Machine(gpu=False, bf16=True, int8=True, packages=EVERYTHING), False, ("openvino", "torch")),
        (Machine(gpu=False, bf16=True, int8=False, packages=EVERYTHING), True, ("openvino", "torch")),
        (Machine(gpu=False, bf16=False, int8=False, packages=EVERYTHING), False, ("openvino", "onnx", "torch")),
        (Machine(gpu=False, bf16=False, int8=True, packages=ONNX), True, ("onnx", "torch")),
        (Machine(gpu=False, bf16=True, int8=True, packages=ONNX), False, ("torch",)),
        (Machine(gpu=False, bf16=True, int8=True, packages=frozenset()), True, ("torch",)),
    ],
)  # fmt: skip
def test_the_machine_decides_what_is_tried_first(machine, calibrated, expected):
    assert candidates(machine, calibrated=calibrated) == expected


def test_auto_without_extras_is_torch(make_model, monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda _package: False)
    assert make_model().use_backend() == "torch"


def test_auto_passes_over_a_backend_whose_vectors_stray(make_model, monkeypatch, chips):
    model = make_model()
    expected = model.embed_chips(chips)
    monkeypatch.setattr(backends, "candidates", lambda _machine, *, calibrated: ("onnx", "torch"))  # noqa: ARG005

    class Straying:
        """A graph that has lost its way."""

        def run(self, output, chips):
            return np.ones((len(chips), 16) if output == "embedding" else (len(chips), 16, 4, 4), np.float32)

    monkeypatch.setattr(backends, "OnnxRunner", lambda _graph: Straying())
    monkeypatch.setattr(backends, "write_onnx", lambda _plan, path: path.write_bytes(b""))
    assert model.use_backend("auto") == "torch"
    np.testing.assert_array_equal(model.embed_chips(chips), expected)


@pytest.fixture
def odd_model(make_encoder, small_sensor, teacher):
    """A factory of models whose encoder embeds by a function of chips."""

    class Odd(nn.Module):
        def __init__(self, embed):
            super().__init__()
            self.settings = make_encoder().settings
            self.embed = embed

        def tokens(self, chips, *, level):  # noqa: ARG002
            return chips[:, :1].reshape(-1, 16, 4, 4)

    return lambda embed: Model({"image": Odd(embed)}, sensor=small_sensor, teacher=teacher)


@pytest.mark.parametrize(
    ("embed", "sentence"),
    [
        (lambda chips: torch.special.i0(chips[:, 0, 0]), "image encoder does not become ONNX"),
        (lambda chips: torch.from_numpy(np.sort(chips.numpy()[:, 0, 0])), "do not run|other vectors|of the shape"),
    ],
)
def test_what_no_graph_can_do_is_named_and_auto_leaves_it_to_torch(odd_model, monkeypatch, embed, sentence):
    pytest.importorskip("onnxruntime")
    model = odd_model(embed)
    with pytest.raises(ExportFailed, match=sentence):
        model.use_backend("onnx")
    monkeypatch.setattr(backends, "candidates", lambda _machine, *, calibrated: ("onnx", "torch"))  # noqa: ARG005
    assert model.use_backend("auto") == "torch"


def test_a_graph_of_another_shape_is_no_model(make_model):
    class Shorter:
        """Gives half of the numbers."""

        name = "shorter"

        def embed(self, chips):
            return np.ones((len(chips), 8), np.float32)

        def tokens(self, chips, *, level):  # noqa: ARG002
            return np.ones((len(chips), 8, 4, 4), np.float32)

    encoders = make_model().encoders
    with pytest.raises(ExportFailed, match=r"shorter gives vectors of the shape \(.*8\)"):
        measure_parity(encoders, TorchBackend(encoders), Shorter(), probe_chips(encoders))
