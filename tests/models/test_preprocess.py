import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

from geograft.errors import CheckpointMismatch, MissingInput
from geograft.models.preprocess import PhotoPreprocess, read_preprocessor, read_spec

WALKS = Path(__file__).parents[3] / "shared" / "data" / "walks" / "photos"


def both(processor, folder, images):
    """Our inputs and transformers' own."""
    processor.save_pretrained(folder)
    theirs = processor(images, return_tensors="np")["pixel_values"]
    return read_preprocessor(Path(folder))(images), theirs


@pytest.mark.parametrize(("edge", "crop"), [(32, 32), (40, 32), (33, 21), (20, 31)])
def test_pictures_are_resized_and_cut_as_clip_does(tmp_path, pictures, edge, crop):
    processor = CLIPImageProcessor(size={"shortest_edge": edge}, crop_size={"height": crop, "width": crop})
    ours, theirs = both(processor, tmp_path, pictures)
    assert ours.shape == (len(pictures), 3, crop, crop)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_pictures_are_squashed_as_siglip_does(tmp_path, pictures):
    ours, theirs = both(SiglipImageProcessor(size={"height": 24, "width": 36}), tmp_path, pictures)
    assert ours.shape[2:] == (24, 36)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_steps_that_are_switched_off_are_left_out(tmp_path, pictures):
    processor = CLIPImageProcessor(do_normalize=False, do_rescale=False, size={"shortest_edge": 16}, crop_size=16)
    ours, theirs = both(processor, tmp_path, pictures)
    assert ours.max() > 200
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.shared
@pytest.mark.skipif(not WALKS.is_dir(), reason="the real photos are not beside the checkout")
def test_real_photos_are_prepared_as_clip_does(tmp_path):
    paths = sorted(WALKS.rglob("*.jpg"))[:: 6500 // 12][:12]
    assert len(paths) == 12
    ours, theirs = both(CLIPImageProcessor(), tmp_path, [Image.open(path) for path in paths])
    assert ours.shape == (12, 3, 224, 224)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_processor_config_of_a_whole_processor_is_read_as_well(tmp_path):
    settings = CLIPImageProcessor(size={"shortest_edge": 50}, crop_size=48).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    found = read_preprocessor(tmp_path)
    assert (found.edge, found.size) == (50, (48, 48))


def test_a_folder_without_preprocessing_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointMismatch, match="no preprocessor_config"):
        read_preprocessor(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"size": {"longest_edge": 3}, "image_mean": [0], "image_std": [1]}'])
def test_a_damaged_preprocessor_is_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointMismatch):
        read_preprocessor(tmp_path)


def test_layout_and_channel_order_follow_the_specification():
    picture = Image.new("RGB", (4, 6), (255, 0, 51))
    plain = PhotoPreprocess(size=(4, 4))([picture])
    assert plain.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(plain[0, :, 0, 0], [1, 0, 0.2], atol=1e-6)
    turned = PhotoPreprocess(size=(4, 4), layout="nhwc", channels="bgr")([picture])
    assert turned.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(turned[0, 0, 0], [0.2, 0, 1], atol=1e-6)


def test_a_specification_is_read_from_yaml_with_its_other_entries(tmp_path):
    path = tmp_path / "preprocess.yaml"
    path.write_text("size: 32\nresize: squash\nmean: [0.1, 0.2, 0.3]\nstd: [1, 1, 1]\nlayout: nhwc\noutput: vectors\n")
    spec, rest = read_spec(path)
    assert spec == PhotoPreprocess((32, 32), (0.1, 0.2, 0.3), (1, 1, 1), resize="squash", layout="nhwc")
    assert rest == {"output": "vectors"}


def test_a_missing_specification_shows_what_to_write(tmp_path):
    with pytest.raises(MissingInput, match="size: 224"):
        read_spec(tmp_path / "preprocess.yaml")


@pytest.mark.parametrize(
    "text", ["", "size: 0", "resize: crop", "size: 8\nresize: stretch", "size: 8\nmean: [1]", "size: [", "size: x"]
)
def test_a_specification_that_cannot_be_followed_is_refused(tmp_path, text):
    path = tmp_path / "preprocess.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointMismatch):
        read_spec(path)


def test_equal_settings_have_equal_digests_and_others_not():
    assert PhotoPreprocess((8, 8)).digest == PhotoPreprocess((8, 8)).digest
    assert PhotoPreprocess((8, 8)).digest != PhotoPreprocess((8, 8), resample="bilinear").digest
