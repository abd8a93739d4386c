import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from geograft.errors import MissingInput
from geograft.models.teacher import load_teacher
from geograft.training.captioned import augment_photos, read_captioned
from geograft.training.probe import confusions, prompts, zero_shot
from geograft.training.teacher import TeacherSettings, caption_loss, train_teacher
from geograft.world.classes import CLASSES


def test_the_trained_teacher_loads_as_any_clip(tiny_teacher):
    teacher = load_teacher(tiny_teacher.folder)
    photos = [Image.fromarray(np.full((90, 120, 3), value, np.uint8)) for value in (0, 200)]
    vectors = np.concatenate([teacher.encode_photos(photos), teacher.encode_text(["a forest", "woodland by a lake"])])
    assert vectors.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_folder_holds_half_floats_a_card_and_how_it_was_made(tiny_teacher):
    folder = tiny_teacher.folder
    assert CLIPModel.from_pretrained(folder, dtype="auto").dtype == torch.float16
    assert AutoTokenizer.from_pretrained(folder)("forest")["input_ids"][0] == 1
    assert "held-out words" in (folder / "README.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["width"] == 32
    assert set(manifest["extra"]["metrics"]) == {"top1_seen", "balanced_seen", "top1_words", "top1_phrasings"}


def test_a_region_without_captions_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"captions\.jsonl"):
        train_teacher([tmp_path], tmp_path / "out", settings=TeacherSettings())


def test_indoor_and_unreadable_photos_are_treated_as_such(region):
    from geograft.tables import read_table

    photos = read_captioned([region])
    truth = read_table(region / "truth" / "photos.parquet").set_index("photo_id")
    indoor = truth.index[truth["dirt"] == "indoor"]
    assert len(indoor) > 0
    assert set(photos.subjects[np.isin(photos.ids, indoor)]) == {""}
    assert (photos.subjects[~np.isin(photos.ids, indoor)] != "").all()
    assert len(photos) < len(truth) + 1
    assert all(photos.captions)


def naive_loss(photos, captions, which, scale):
    """CLIP's symmetric loss over the batch as it stands, positives being all equal captions."""
    texts = captions[which].double()
    scores = (photos.double() @ texts.T * scale).tolist()
    same = [[a == b for b in which.tolist()] for a in which.tolist()]
    count, total = len(which), 0.0
    for i in range(count):
        row = sum(math.exp(value) for value in scores[i])
        column = sum(math.exp(scores[j][i]) for j in range(count))
        matches = [j for j in range(count) if same[i][j]]
        total += sum(math.log(row) - scores[i][j] for j in matches) / len(matches)
        total += sum(math.log(column) - scores[j][i] for j in matches) / len(matches)
    return total / (2 * count)


def test_the_caption_loss_is_clips_with_equal_captions_all_right():
    draw = torch.Generator().manual_seed(0)
    photos = torch.nn.functional.normalize(torch.randn(9, 8, generator=draw), dim=1)
    captions = torch.nn.functional.normalize(torch.randn(4, 8, generator=draw), dim=1)
    which = torch.tensor([0, 1, 1, 2, 3, 3, 3, 0, 2])
    loss = caption_loss(photos, captions, which, torch.tensor(5.0))
    assert float(loss) == pytest.approx(naive_loss(photos, captions, which, 5.0), rel=1e-5)


def test_augmented_photos_differ_and_stay_photos():
    photos = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = augment_photos(photos, torch.Generator().manual_seed(1))
    assert seen.shape == photos.shape
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1
    assert float((seen - photos).abs().mean(dim=(1, 2, 3)).min()) > 0.01


def test_a_perfect_teacher_is_measured_as_one(region):
    photos = read_captioned([region])
    outdoors = photos.take(np.flatnonzero(photos.subjects != ""))
    names = [cover.name for cover in CLASSES]
    eye = np.eye(len(names), dtype=np.float32)
    words = {word: n for n, cover in enumerate(CLASSES) for word in (*cover.words, *cover.held_out)}

    def see(pixels):
        assert len(pixels) == len(outdoors)
        return eye[[names.index(subject) for subject in outdoors.subjects]]

    def read(texts):
        return eye[[max((len(w), n) for w, n in words.items() if w in text)[1] for text in texts]]

    assert zero_shot(see, read, outdoors) == {"top1_seen": 1, "balanced_seen": 1, "top1_words": 1, "top1_phrasings": 1}
    assert prompts(read, held_out_words=True).shape == (22, 22)
    present = {name: top for name, top in confusions(see, read, outdoors).items() if top}
    assert present
    assert all(top == [(name, 1.0)] for name, top in present.items())
