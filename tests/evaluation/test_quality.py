"""Scores of captions: known values, with Java and without, and a whole evaluation."""

import json
import shutil

import pytest

import capexport
from capexport import DecodingOptions, MissingExtraError, OptionError, SourceError
from capexport.cli.main import main
from capexport.datasets import load_dataset
from capexport.evaluation.evaluate import evaluate
from capexport.evaluation.quality import score, tokens

REFERENCES = {
    "a": ["A dog runs through the grass .", "The dog's running, isn't it?", "a brown dog on a lawn"],
    "b": ["Two children are on a swing .", "Kids swing .", "A boy and a girl swing in the park ."],
}
PERFECT = {"a": "a brown dog on a lawn", "b": "two children are on a swing"}
WORSE = {"a": "a brown cat on a lawn", "b": "two children are swimming"}

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr("capexport.evaluation.quality.shutil.which", lambda _: None)


@needs_java
def test_scores_with_java():
    perfect, worse = score(REFERENCES, PERFECT), score(REFERENCES, WORSE)
    assert [perfect.scores[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx([1, 1, 1, 1])
    assert perfect.scores["ROUGE-L"] == pytest.approx(1)
    assert perfect.scores["METEOR"] == pytest.approx(1)
    assert all(
        worse.scores[name] < value for name, value in perfect.scores.items() if name not in ("distinct", "words")
    )
    assert "PTB" in perfect.tokenizer
    assert (perfect.scores["distinct"], perfect.scores["words"]) == (1, 6)


@pytest.mark.usefixtures("no_java")
def test_scores_without_java():
    quality = score(REFERENCES, WORSE)
    assert set(quality.skipped) == {"METEOR", "SPICE"}
    assert all("Java" in why for why in quality.skipped.values())
    assert quality.scores["BLEU-1"] == pytest.approx(8 / 10)
    assert "no Java" in quality.tokenizer


def test_what_has_no_score(monkeypatch):
    with pytest.raises(OptionError, match="no captions"):
        score({}, {})
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(MissingExtraError, match=r"capexport\[evaluate\]"):
        score(REFERENCES, PERFECT)


def test_tokens():
    text = "The dog's running, isn't it? A T-shirt; 3.5 o'clock (noon) - \"yes\""
    assert tokens({"a": [text]}) == {"a": ["the dog 's running is n't it a t-shirt 3.5 o clock noon yes"]}


@needs_java
def test_tokens_are_nearly_the_ptb_tokenizers(flickr8k):
    from capexport.evaluation.quality import _ptb

    captions = {str(k): list(photo.captions) for k, photo in enumerate(load_dataset("flickr8k", flickr8k, "dev"))}
    ours, theirs = tokens(captions), _ptb(captions)
    pairs = [pair for key in captions for pair in zip(ours[key], theirs[key], strict=True)]
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.99


@pytest.mark.usefixtures("no_java")
def test_an_evaluation(tiny_bundle, tiny_source, small_flickr8k):
    photos = load_dataset("flickr8k", small_flickr8k, "train")
    options = DecodingOptions(beams=2)
    ours = evaluate(tiny_bundle.directory, photos, options)
    captioner = capexport.load(tiny_bundle)
    candidates = {str(photo.path): captioner.caption(photo.path, beams=2).text for photo in photos}
    assert ours.quality == score({str(photo.path): photo.captions for photo in photos}, candidates)
    assert ours.photos == 18
    assert evaluate(tiny_source, photos, options).quality == ours.quality
    with pytest.raises(SourceError, match="neither a bundle nor a captioner"):
        evaluate(small_flickr8k, photos)


@pytest.mark.usefixtures("no_java")
def test_the_command(capsys, tiny_bundle, small_flickr8k):
    arguments = ["evaluate", str(tiny_bundle.directory), "--data", str(small_flickr8k), "--limit", "4", "--beams", "2"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "CIDEr" in out
    assert "SPICE      skipped: it runs on Java" in out
    assert "4 photos in" in out
    assert err == ""
    assert main([*arguments, "--json"]) == 0
    assert {"BLEU-4", "CIDEr", "distinct"} <= json.loads(capsys.readouterr().out)["quality"]["scores"].keys()
    assert main([*arguments, "--split", "none"]) == 2
