"""One reader for lists of labels, captions and questions: every row comes out, or is named."""

from __future__ import annotations

import codecs
import json

import pytest

from hf_video.data import load_captions, load_questions, load_videos
from hf_video.data.sources.tables import read_table
from hf_video.errors import DataError

HARD = [
    "plain", "with, comma", "with; semicolon", 'with "quotes"', "with\u2028separator", "with\x85next line",
    "with\x0cform feed", "with\nline end", "with\r\nWindows line end", "#hash", "café", "\u2029", "x\x1cy\x1dz\x1e",
]  # fmt: skip


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


@pytest.fixture
def videos(tmp_path):
    """Empty files: nothing opens them here."""
    for number in range(len(HARD)):
        (tmp_path / f"{number}.mp4").touch()
    (tmp_path / "#1.mp4").touch()
    return tmp_path


class TestEveryRowComesOut:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
    def test_quoted_cells(self, videos, separator, ending):
        lines = [separator.join(("video", "label", "caption"))]
        lines += [separator.join((f"{i}.mp4", quoted(text), quoted(text))) for i, text in enumerate(HARD)]
        path = videos / "list.csv"
        path.write_bytes((ending + ending).join(lines).encode())
        records = read_table(path).records
        assert [record["caption"] for record in records] == [text.strip() for text in HARD]
        assert [record["video"] for record in records] == [f"{i}.mp4" for i in range(len(HARD))]

    @pytest.mark.parametrize("name", ["list.jsonl", "list.json"])
    def test_json_lines(self, videos, name):
        rows = [json.dumps({"video": f"{i}.mp4", "label": text}, ensure_ascii=False) for i, text in enumerate(HARD)]
        (videos / name).write_bytes("\r\n\n".join(rows).encode())
        assert [record["label"] for record in read_table(videos / name).records] == HARD

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
    def test_encodings(self, videos, encoding):
        mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
        for name, text in (
            ("l.csv", "video,label\n0.mp4,café\n"),
            ("l.jsonl", '{"video": "0.mp4", "label": "café"}\n'),
        ):
            (videos / name).write_bytes(mark + text.encode(encoding))
            assert read_table(videos / name).records == [{"video": "0.mp4", "label": "café"}]

    def test_hash_is_a_letter_and_hash_blank_a_comment(self, videos):
        (videos / "l.csv").write_text("# made by hand\nvideo,label\n#1.mp4,x\n# 2,y\n")
        assert [record["video"] for record in read_table(videos / "l.csv").records] == ["#1.mp4", "# 2"]
        (videos / "l.txt").write_text("# made by hand\n#1.mp4 x\n0.mp4 y\n")
        rows = load_videos(videos / "l.txt", split="train", inspect=None)["train"]
        assert [(row.name, rows.labels[row.label]) for row in rows] == [("#1.mp4", "x"), ("0.mp4", "y")]

    def test_captions_and_questions_read_alike(self, videos):
        (videos / "c.csv").write_bytes('video,caption\n0.mp4,"one\u2028two"\n#1.mp4,"a, b"\n'.encode())
        rows = load_captions(videos / "c.csv", inspect=None)["train"]
        assert [(row.name, row.caption) for row in rows] == [("0.mp4", "one two"), ("#1.mp4", "a, b")]
        (videos / "q.jsonl").write_text(
            json.dumps({"video": "0.mp4", "question": "what\u2028now", "answer": "yes"}, ensure_ascii=False) + "\n"
        )
        (row,) = load_questions(videos / "q.jsonl", inspect=None)["train"]
        assert (row.question, row.answer) == ("what now", "yes")
        (videos / "0.txt").write_bytes("first\u2028half\nsecond\r\n".encode())
        (videos / "c.csv").unlink()
        (videos / "q.jsonl").unlink()
        assert [row.caption for row in load_captions(videos, inspect=None)["train"]] == ["first half", "second"]

    def test_quotes_that_are_no_csv_are_letters_in_files_with_tabs(self, videos):
        (videos / "l.tsv").write_text('video\tcaption\n0.mp4\t"Go" she said\n1.mp4\t5" wide\n')
        assert [record["caption"] for record in read_table(videos / "l.tsv").records] == ['"Go" she said', '5" wide']

    def test_separators_of_headless_lists(self, videos):
        for text, label in (("0.mp4;walk, run\n", "walk, run"), ("0.mp4,a; b\n", "a; b"), ("0.mp4\tc\n", "c")):
            (videos / "l.csv").write_text(text)
            assert read_table(videos / "l.csv").records == [{"video": "0.mp4", "label": label}]
        (videos / "l.txt").write_text("my,clip.mp4 3\n")
        assert read_table(videos / "l.txt").records == [{"video": "my,clip.mp4", "label": "3"}]


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("l.csv", b"video,label\n0.mp4,a\n1.mp4,b,c\n", "line 3: 3 cells came and the header has 2"),
            ("l.csv", b"video,label,split\n0.mp4,a\n", "line 2: 2 cells came and the header has 3"),
            ("l.csv", b"0.mp4,a,b,c\n", "line 1: 4 cells came and there is no header"),
            ("l.csv", b'video,label\n0.mp4,"a\n1.mp4,b\n', "line 2: unexpected end of data"),
            ("l.csv", b"video,label,label\n0.mp4,a,b\n", "two columns called 'label'"),
            ("l.csv", b"video,label\n\n0.mp4,caf\xe9\n", "line 3: this is no UTF-8"),
            ("l.csv", "video,label\n0.mp4,a\n".encode("utf-16-le"), "zero bytes"),
            ("l.jsonl", b'{"video": "0.mp4"}\n\n{"video":\n', "line 3: not valid JSON"),
            ("l.jsonl", b'{"video": "0.mp4"}\n[1]\n', "line 2: a list came"),
            ("l.json", b'{"0.mp4": "a", "0.mp4": "b"}', "'0.mp4' stands twice"),
        ],
    )
    def test_the_line_is_named(self, videos, name, data, message):
        (videos / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            load_videos(videos / name, inspect=None)


class TestJsonForms:
    @pytest.mark.parametrize(
        ("given", "records"),
        [
            ({"a.mp4": [1, 3]}, [{"video": "a.mp4", "label": [1, 3]}]),
            ({"a.mp4": ["run", "jump"]}, [{"video": "a.mp4", "label": ["run", "jump"]}]),
            ({"run": ["a.mp4", "b.mp4"]}, [{"video": "a.mp4", "label": "run"}, {"video": "b.mp4", "label": "run"}]),
            ({"train": ["a.mp4"]}, [{"split": "train", "video": "a.mp4"}]),
            ({"annotations": [{"video": "a.mp4"}]}, [{"video": "a.mp4"}]),
            ({"fold": [{"video": "a.mp4"}], "b": []}, [{"split": "fold", "video": "a.mp4"}]),
        ],
    )
    def test_objects(self, tmp_path, given, records):
        (tmp_path / "l.json").write_text(json.dumps(given))
        assert read_table(tmp_path / "l.json").records == records
