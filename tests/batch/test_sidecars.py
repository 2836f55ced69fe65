import xml.etree.ElementTree as ET

import pytest

import capexport
from capexport import DecodingOptions, OutputError
from capexport.batch.run import Folder, caption_folder
from capexport.batch.sidecars import TEXT, XMP, check_sidecars

DESCRIPTION = (
    "./{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF/{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    "/{http://purl.org/dc/elements/1.1/}description/{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Alt"
    "/{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
)


def described(path):
    [item] = ET.parse(path).getroot().findall(DESCRIPTION)
    assert item.get("{http://www.w3.org/XML/1998/namespace}lang") == "x-default"
    return item.text


def test_each_photo_gets_its_caption(tiny_bundle, folder, tmp_path):
    captioner = capexport.load(tiny_bundle, threads=2)
    what = Folder(folder, tmp_path / "captions.jsonl", sidecars=(TEXT, XMP))
    caption_folder(captioner, what, DecodingOptions())
    assert (len(list(folder.glob("*.jpg.txt"))), len(list(folder.glob("*.xmp")))) == (28, 28)
    for text in folder.glob("*.txt"):
        photo = text.with_suffix("")
        said = captioner.caption(photo).text
        assert (text.read_text(), described(photo.with_suffix(".xmp"))) == (said + "\n", said)


def test_a_packet_holds_whatever_a_text_has(tmp_path):
    XMP.write(tmp_path / "a.jpg", "salt & pepper <tea> é", force=False)
    assert described(tmp_path / "a.xmp") == "salt & pepper <tea> é"
    packet = (tmp_path / "a.xmp").read_text(encoding="utf-8")
    assert packet.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert packet.endswith('<?xpacket end="w"?>\n')


def test_our_packets_are_replaced_and_others_only_by_force(tmp_path):
    photo, packet = tmp_path / "a.jpg", tmp_path / "a.xmp"
    XMP.write(photo, "a dog", force=False)
    XMP.write(photo, "a cat", force=False)
    assert described(packet) == "a cat"
    others = packet.read_text(encoding="utf-8").replace("capexport", "XMP Core 6.0")
    packet.write_text(others, encoding="utf-8")
    with pytest.raises(OutputError, match="not known to be capexport's"):
        XMP.write(photo, "a dog", force=False)
    assert packet.read_text(encoding="utf-8") == others
    XMP.write(photo, "a dog", force=True)
    assert described(packet) == "a dog"


def test_texts_are_replaced_only_by_force(tmp_path):
    photo, text = tmp_path / "a.jpg", tmp_path / "a.jpg.txt"
    TEXT.write(photo, "a dog", force=False)
    TEXT.write(photo, "a dog", force=False)
    with pytest.raises(OutputError, match="exists already"):
        TEXT.write(photo, "a cat", force=False)
    assert text.read_text() == "a dog\n"
    TEXT.write(photo, "a cat", force=True)
    assert text.read_text() == "a cat\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_sidecar_in_the_way_is_found_before_the_work(tiny_bundle, folder, tmp_path):
    (folder / "photo-29.jpg.txt").write_text("my own words\n")
    for resume in (False, True):  # there is nothing yet to resume
        what = Folder(folder, tmp_path / "captions.jsonl", sidecars=(TEXT, XMP), resume=resume)
        with pytest.raises(OutputError, match=r"photo-29\.jpg\.txt exists already"):
            caption_folder(capexport.load(tiny_bundle), what, DecodingOptions())
    assert not (tmp_path / "captions.jsonl").exists()
    assert [path.name for path in folder.iterdir() if path.suffix != ".jpg"] == ["photo-29.jpg.txt"]


def test_photos_that_would_share_a_packet_are_refused(tmp_path):
    photos = [tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "b.jpg"]
    with pytest.raises(OutputError, match=r"would share .*a\.xmp"):
        check_sidecars(photos, [XMP], fresh=False, force=True)
    assert check_sidecars(photos, [TEXT], fresh=True, force=False) == 3
    elsewhere = [tmp_path / "a.jpg", tmp_path / "other" / "a.png"]
    assert check_sidecars(elsewhere, [XMP], fresh=True, force=False) == 2


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    (tmp_path / ".a.jpg.txt.123.part").touch()
    (tmp_path / ".mine.part").touch()
    check_sidecars([tmp_path / "a.jpg"], [TEXT], fresh=False, force=False)
    assert [path.name for path in tmp_path.iterdir()] == [".mine.part"]
