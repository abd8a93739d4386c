import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from geograft.errors import CheckpointMismatch, MissingInput, NoTextEncoder, UnknownModel
from geograft.models.frozen import FrozenTeacher
from geograft.models.teacher import load_teacher

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")

SPEC = "size: 8\nresize: squash\nmean: [0.5, 0.5, 0.5]\nstd: [0.25, 0.25, 0.25]\n"
MATRIX = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def write_onnx(path, *, batch="n"):
    """Mean over the picture, then a matrix: `vectors` (N, 5); `maps` is the input itself."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["vectors"]),
        helper.make_node("Identity", ["pixels"], ["maps"]),
    ]
    shape = [batch, 3, 8, 8]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [batch, 5]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape),
        ],
        [numpy_helper.from_array(MATRIX, "matrix")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def write_script(path):
    class Small(torch.nn.Module):
        def forward(self, pixels):
            return pixels, pixels.mean(dim=(2, 3)) @ torch.from_numpy(MATRIX)

    torch.jit.trace(Small(), torch.zeros(2, 3, 8, 8)).save(str(path))


@pytest.fixture
def make_frozen(tmp_path):
    """A factory of exported encoders with their specification."""

    def make(name="small.onnx", *, spec=SPEC, **onnx_options):
        path = tmp_path / name
        write_onnx(path, **onnx_options) if path.suffix == ".onnx" else write_script(path)
        (tmp_path / "preprocess.yaml").write_text(spec if path.suffix == ".onnx" else spec + "output: 1\n")
        return path

    return make


def expected(images):
    """The same encoder in numpy."""
    small = [np.asarray(i.convert("RGB").resize((8, 8), Image.Resampling.BICUBIC), np.float64) for i in images]
    rows = ((np.stack(small) / 255 - 0.5) / 0.25).mean(axis=(1, 2)) @ MATRIX
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["small.onnx", "small.pt"])
def test_an_exported_encoder_teaches(make_frozen, pictures, name):
    teacher = load_teacher(make_frozen(name))
    vectors = teacher.encode_photos(pictures)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(pictures), atol=1e-5)
    assert teacher.dim == 5
    assert teacher.encode_photos([]).shape == (0, 5)


def test_a_fixed_batch_is_filled_up_and_cut_again(make_frozen, pictures):
    teacher = FrozenTeacher(make_frozen(batch=4))
    assert len(pictures) % 4
    np.testing.assert_allclose(teacher.encode_photos(pictures), expected(pictures), atol=1e-5)


def test_an_image_only_teacher_is_asked_for_text_in_vain(make_frozen):
    with pytest.raises(NoTextEncoder):
        load_teacher(make_frozen()).encode_text(["lake"])


def test_the_fingerprint_names_file_and_specification(make_frozen, tmp_path):
    path = make_frozen()
    first = FrozenTeacher(path).fingerprint
    assert FrozenTeacher(shutil.copy(path, tmp_path / "copy.onnx")).fingerprint == first
    make_frozen(spec=SPEC + "resample: bilinear\n")
    assert FrozenTeacher(path).fingerprint != first


def test_an_output_is_chosen_by_name(make_frozen, pictures):
    vectors = FrozenTeacher(make_frozen(spec=SPEC + "output: vectors\n")).encode_photos(pictures)
    np.testing.assert_allclose(vectors, expected(pictures), atol=1e-5)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [("output: maps\n", "finite vectors"), ("output: 7\n", "its outputs are vectors, maps"), ("szie: 3\n", "szie")],
)
def test_a_wrong_specification_says_what_to_change(make_frozen, extra, sentence):
    with pytest.raises(CheckpointMismatch, match=sentence):
        FrozenTeacher(make_frozen(spec=SPEC + extra)).encode_photos([Image.new("RGB", (9, 9))])


@pytest.mark.parametrize("name", ["small.onnx", "small.pt"])
def test_a_wrong_size_is_blamed_on_the_specification(make_frozen, name):
    path = make_frozen(name, spec=SPEC + "layout: nhwc\n")
    with pytest.raises(CheckpointMismatch, match=r"check size and layout"):
        FrozenTeacher(path).encode_photos([Image.new("RGB", (9, 9))])


@pytest.mark.parametrize("name", ["small.onnx", "small.pt"])
def test_a_damaged_file_is_refused(make_frozen, name):
    path = make_frozen(name)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CheckpointMismatch, match="is not"):
        FrozenTeacher(path)


def test_a_pickle_is_never_unpickled(make_frozen, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = make_frozen("small.pt")
    torch.save({"weights": Trap()}, path)
    with pytest.raises(CheckpointMismatch):
        FrozenTeacher(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_files_are_named(make_frozen, tmp_path):
    with pytest.raises(UnknownModel, match=r"nothing\.onnx"):
        load_teacher(tmp_path / "nothing.onnx")
    path = make_frozen()
    path.with_name("preprocess.yaml").unlink()
    with pytest.raises(MissingInput, match="write what the encoder expects"):
        load_teacher(path)
