"""capexport train and distill from a plain folder of photos, as their user types them."""

import csv
import json

import pytest
from PIL import Image

from capexport.captioner.training import TEMPERATURES
from tests.cli.test_cli import refused, run

SMALL = ["--image-size", 64, "--num-layers", 1, "--units", 16, "--vocabulary-size", 40, "--max-length", 12]
QUICK = ["--epochs", 2, "--batch", 8, "--steps-per-epoch", 10, "--validation-steps", 2, "--learning-rate", 0.005]


@pytest.fixture
def folder(small_flickr8k):
    """The small data set as a plain folder: a captions.csv beside the photos."""
    root = small_flickr8k / "Flicker8k_Dataset"
    dev = set((small_flickr8k / "Flickr8k_text/Flickr_8k.devImages.txt").read_text().split())
    with (root / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "caption", "split"])
        for line in (small_flickr8k / "Flickr8k_text/Flickr8k.token.txt").read_text().splitlines():
            name, caption = line.split("\t")
            rows.writerow([name[:-2], caption, "dev" if name[:-2] in dev else "train"])
    return root


@pytest.fixture
def encoder_weights(lively_encoder, tmp_path):
    path = tmp_path / "encoder.weights.h5"
    lively_encoder.save_weights(path, save_format="h5")
    return path


def test_from_a_folder_of_photos_to_a_caption(capsys, folder, encoder_weights, photos, tmp_path):
    out, bundle = tmp_path / "captioner", tmp_path / "bundle"
    arguments = ["train", "--dataset", "folder", "--data", folder, "--encoder-weights", encoder_weights, "--out", out]
    arguments += [*SMALL, *QUICK, "--train-photos", 12, "--dev-photos", 4]
    code, text, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["Uniform entropy", "Marginal entropy"]
    for epoch in (1, 2):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"epoch {epoch}: loss "))
        shown = [line.split(":")[0].split()[-1] for line in lines[at + 1 : at + 1 + len(TEMPERATURES)]]
        assert shown == ["0.0", "0.5", "1.0"]
    work = out / "training"
    assert len(json.loads((work / "history.json").read_text())) == 2
    with Image.open(work / "curves.png") as curves:
        assert curves.width > curves.height > 300
    assert run(capsys, "convert", out, "--to", "onnx", "--out", bundle)[0] == 0
    code, text, _ = run(capsys, "caption", photos[0], "--bundle", bundle)
    assert (code, len(text.splitlines())) == (0, 1)


def test_the_best_recipe_goes_on_from_a_captioner(capsys, folder, encoder_weights, tmp_path):
    """Encoder and decoder of a captioner that the tutorial's recipe has trained."""
    data = ["train", "--dataset", "folder", "--data", folder, *SMALL, "--train-photos", 12, "--dev-photos", 4]
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(capsys, *data, *QUICK, "--encoder-weights", encoder_weights, "--out", first)[0] == 0
    best = [*data, "--recipe", "best", "--encoder-weights", first, "--init", first, "--out", second]
    refused(capsys, "--batch is an option of --recipe tutorial", *best, "--batch", 8)
    refused(capsys, "--views is an option of --recipe best", *data, "--views", 2, "--out", second)
    refused(capsys, "nothing to do", *best, "--word-epochs", 0, "--joint-epochs", 0, "--cider-epochs", 0)
    refused(capsys, "has 'MobileNetV3Small' as its backbone: leave --backbone out", *best, "--backbone", "MobileNetV2")
    taken = [one for one in best if one not in ("--image-size", 64)]  # which the encoder's captioner says, too
    code, text, err = run(capsys, *taken, "--word-epochs", 0, "--joint-epochs", 0, "--cider-epochs", 1)
    assert (code, err) == (0, "")
    assert text.splitlines()[2].startswith("cider epoch 1: loss -")
    assert (second / "config.json").is_file()


def test_distill_takes_the_photos_of_a_folder(capsys, folder, encoder_weights, tmp_path):
    out = tmp_path / "encoder"
    arguments = ["distill", "--dataset", "folder", "--data", folder, "--teacher-weights", encoder_weights]
    arguments += ["--image-size", 64, "--epochs", 1, "--out", out]
    refused(capsys, "7 photos do not fill a batch of 8", *arguments, "--batch", 8, "--train-photos", 7)
    code, _, err = run(capsys, *arguments, "--batch", 4, "--train-photos", 9)
    assert (code, err) == (0, "")
    assert (out / "encoder.weights.h5").is_file()


@pytest.mark.parametrize(
    "option",
    ["--batch 0", "--epochs 0", "--seed -1", "--learning-rate nan", "--steps-per-epoch 0", "--patience -1"]
    + [f"--recipe best {one}" for one in ("--seed -1", "--average 7", "--label-smoothing 3", "--word-epochs -1")],
)
def test_numbers_that_make_no_sense_of_training(option, capsys, folder, tmp_path):
    *recipe, name, value = option.split()
    arguments = ["train", "--dataset", "folder", "--data", folder, "--out", tmp_path / "out", *recipe, name, value]
    refused(capsys, f"{name[2:].replace('-', '_')} must be a", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--batch 0", "--epochs 0", "--momentum 5", "--smallest-crop 9", "--seed -1"])
def test_numbers_that_make_no_sense_of_distillation(option, capsys, folder, tmp_path):
    name, value = option.split()
    arguments = ["distill", "--dataset", "folder", "--data", folder, "--out", tmp_path / "out", name, value]
    refused(capsys, f"{name[2:].replace('-', '_')} must be a", *arguments)


def test_data_sets_that_are_refused(capsys, folder, tmp_path):
    arguments = ["train", "--data", folder, "--out", tmp_path / "out"]
    refused(capsys, "no data set 'mine'; there are: flickr8k", *arguments, "--dataset", "mine")
    refused(capsys, "at least 1, not 0", *arguments, "--dataset", "folder", "--train-photos", 0)
    refused(capsys, "captions_trainYEAR.json", *arguments, "--dataset", "coco")
    with (folder / "captions.csv").open("a") as file:
        file.write("none.jpg,a dog,train\n")
    refused(capsys, "captions.csv, line 122: the photo", *arguments, "--dataset", "folder")
    assert not (tmp_path / "out").exists()
