"""`spiece.model`: written by hand, read, and cut short anywhere."""

import base64
import struct

import pytest

from minilm.pretrained.spiece import CONTROL, UNKNOWN, USER_DEFINED, read_spiece
from minilm.tokenizers import TokenizerError

PIECES = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
PIECES += [("▁", -2.0, 1), ("▁the", -3.25, 1), ("é", -4.5, 1), ("<sep>", 0.0, USER_DEFINED)]


def whole(number):
    data = b""
    while number > 0x7F:
        data, number = data + bytes([number & 0x7F | 0x80]), number >> 7
    return data + bytes([number])


def field(number, value):
    """A field of bytes, of a float, or of a whole number."""
    if isinstance(value, bytes):
        return whole(number << 3 | 2) + whole(len(value)) + value
    if isinstance(value, float):
        return whole(number << 3 | 5) + struct.pack("<f", value)
    return whole(number << 3) + whole(value)


def spiece(pieces=PIECES, charsmap=b""):
    """A model as SentencePiece writes it, with settings that nobody reads."""
    data = b""
    for text, score, kind in pieces:
        piece = field(1, text.encode()) + field(2, score)
        data += field(1, piece if kind == 1 else piece + field(3, kind))
    data += field(2, field(3, 1) + field(10, 0.75) + field(4, 32000))
    data += field(3, field(1, b"nmt_nfkc") + (field(2, charsmap) if charsmap else b""))
    return data + whole(9 << 3 | 1) + bytes(8)


def test_pieces_have_their_texts_and_scores_in_the_order_of_their_ids(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(spiece(charsmap=bytes(range(200))))
    content = read_spiece(path)
    assert content["model"]["vocab"] == [[text, score] for text, score, _ in PIECES]
    assert content["model"]["unk_id"] == 2
    assert content["added_tokens"] == [
        {"content": "<pad>", "special": True},
        {"content": "</s>", "special": True},
        {"content": "<sep>", "special": False},
    ]
    table = content["normalizer"]["precompiled_charsmap"]
    assert base64.b64decode(table) == bytes(range(200))


def test_without_a_table_of_characters_there_is_no_normalizer(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(spiece())
    assert read_spiece(path)["normalizer"] is None


def test_a_file_cut_inside_a_field_is_an_error(tmp_path):
    path, data, read = tmp_path / "spiece.model", spiece(), 0
    for size in range(len(data)):
        path.write_bytes(data[:size])
        try:
            read += len(read_spiece(path)["model"]["vocab"]) <= len(PIECES)
        except TokenizerError as error:
            assert "expected" in str(error) and "got" in str(error)
    assert 0 < read < 20  # where a field ends


@pytest.mark.parametrize(
    "data",
    [
        b"",
        spiece(PIECES[:2]),
        field(1, 3),
        field(1, field(2, 1.0)),
        field(1, field(1, b"\xff") + field(2, 1.0)),
        field(1, field(1, b"a") + field(2, 1)),
        field(1, field(1, b"a") + field(3, b"a")),
        field(3, 7) + spiece(),
        field(3, field(2, 7)) + spiece(),
        b"\x0b" + spiece(),
        b"\xff" * 11,
    ],
)
def test_a_file_of_other_fields_is_an_error(data, tmp_path):
    (tmp_path / "spiece.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"spiece.model: expected .*, got "):
        read_spiece(tmp_path / "spiece.model")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(TokenizerError, match="expected a SentencePiece model, got No such file"):
        read_spiece(tmp_path / "spiece.model")
