"""Laws of turning texts into rows: templates, truncation, windows, padding."""

from copy import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers import AddedToken, CharTokenizer, Template
from minilm.tokenizers.template import bert_template, read_template, write_template

SPECIAL = ["[PAD]", "[CLS]", "[SEP]"]
BERT = CharTokenizer("abcdefghij", SPECIAL, bert_template("[CLS]", "[SEP]"))
PAD, CLS, SEP = (BERT.special_tokens[token] for token in SPECIAL)
PLAIN = CharTokenizer("abcdefghij")
TEXTS = st.text("abcdefghij", max_size=12)


def rows(encoding):
    return [ids[mask == 1].tolist() for ids, mask in zip(*both(encoding), strict=True)]


def both(encoding):
    return encoding.input_ids, encoding.attention_mask


def test_a_template_stands_around_a_text_and_a_pair():
    one = BERT("abc")
    assert one.input_ids.tolist() == [[CLS, 0, 1, 2, SEP]]
    assert one.token_type_ids.tolist() == [[0] * 5]
    assert one.special_tokens_mask.tolist() == [[1, 0, 0, 0, 1]]
    pair = BERT("ab", "cde")
    assert pair.input_ids.tolist() == [[CLS, 0, 1, SEP, 2, 3, 4, SEP]]
    assert pair.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert pair.offset_mapping.tolist() == [
        [[0, 0], [0, 1], [1, 2], [0, 0], [0, 1], [1, 2], [2, 3], [0, 0]]
    ]
    without = BERT("ab", "cde", add_special_tokens=False)
    assert without.input_ids.tolist() == [[0, 1, 2, 3, 4]]
    assert without.token_type_ids.tolist() == [[0, 0, 1, 1, 1]]
    assert all(
        array.dtype == np.int64 for array in (*both(one), one.token_type_ids, one.offset_mapping)
    )


def test_a_model_takes_its_names_from_the_encoding():
    encoding = BERT(["ab", "cd"])
    assert dict(**encoding).keys() == {"input_ids", "attention_mask"}
    assert encoding["offset_mapping"] is encoding.offset_mapping


@given(st.lists(TEXTS, min_size=1))
def test_padding_on_the_left_moves_each_row_to_the_right(texts):
    right, left = BERT(texts, padding=True), copy(BERT)
    left.padding_side = "left"
    moved = left(texts, padding=True)
    shifts = (right.attention_mask == 0).sum(1)
    for name in ("input_ids", "attention_mask", "token_type_ids", "offset_mapping"):
        for row, expected, shift in zip(moved[name], right[name], shifts, strict=True):
            assert np.array_equal(row, np.roll(expected, shift, 0))


def test_the_longest_row_is_what_the_model_takes_unless_another_is_asked_for():
    limited = copy(BERT)
    limited.model_max_length = 5
    assert limited("abcdefgh", truncation=True).input_ids.shape == (1, 5)
    assert limited("a", padding="max_length").input_ids.shape == (1, 5)
    assert limited("abcdefgh", truncation=True, max_length=4).input_ids.shape == (1, 4)
    assert limited("abcdefgh").input_ids.shape == (1, 10)


@given(st.lists(TEXTS, min_size=1))
def test_padding_changes_no_row_and_is_masked(texts):
    encoding = BERT(texts, padding=True)
    assert rows(encoding) == [BERT(text).input_ids[0].tolist() for text in texts]
    padding = encoding.attention_mask == 0
    assert (encoding.input_ids[padding] == PAD).all()
    assert (encoding.special_tokens_mask[padding] == 1).all()
    assert (encoding.token_type_ids[padding] == 0).all()
    assert (encoding.offset_mapping[padding] == 0).all()
    assert (np.diff(encoding.attention_mask, axis=1) <= 0).all()
    assert encoding.input_ids.shape == (len(texts), max(len(text) for text in texts) + 2)


def test_padding_to_max_length_reaches_it_and_cuts_nothing():
    assert BERT("abc", padding="max_length", max_length=9).input_ids.shape == (1, 9)
    assert BERT("abc", padding="max_length", max_length=2).input_ids.shape == (1, 5)


@given(TEXTS, st.integers(2, 16))
def test_truncation_keeps_the_beginning(text, max_length):
    (row,) = rows(BERT(text, truncation=True, max_length=max_length))
    assert row == [CLS, *BERT.encode(text)[: max_length - 2], SEP]


@given(TEXTS, TEXTS, st.integers(3, 30))
def test_longest_first_takes_tokens_from_the_longer_text_one_by_one(a, b, max_length):
    left = [BERT.encode(a), BERT.encode(b)]
    while len(left[0]) + len(left[1]) > max_length - 3:
        left[int(len(left[1]) >= len(left[0]))].pop()
    short, long = sorted(map(len, left))
    encoding = BERT(a, b, truncation=True, max_length=max_length)
    types = encoding.token_type_ids[0]
    kept = [int((types == 0).sum()) - 2, int((types == 1).sum()) - 1]
    assert sorted(kept) == [short, long]
    assert rows(encoding) == [
        [CLS, *BERT.encode(a)[: kept[0]], SEP, *BERT.encode(b)[: kept[1]], SEP]
    ]


@given(TEXTS, TEXTS, st.integers(4, 30), st.sampled_from(["only_first", "only_second"]))
def test_only_one_of_two_is_cut(a, b, max_length, which):
    whole, cut = (b, a) if which == "only_first" else (a, b)
    room = max_length - 3 - len(whole)
    if room < 0 and len(cut) > room:
        with pytest.raises(ValueError, match=f"got {room} of max_length {max_length}"):
            BERT(a, b, truncation=which, max_length=max_length)
        return
    (row,) = rows(BERT(a, b, truncation=which, max_length=max_length))
    kept = {a: a, b: b, cut: cut[: max(0, room)]}
    first, second = (kept[a], b) if which == "only_first" else (a, kept[b])
    assert row == [CLS, *BERT.encode(first), SEP, *BERT.encode(second), SEP]


@given(st.text("abcdefghij", max_size=40), st.integers(3, 20), st.data())
def test_windows_overlap_by_stride_and_cover_the_text(text, max_length, data):
    stride = data.draw(st.integers(0, max_length - 3))
    encoding = BERT(text, padding=True, truncation=True, max_length=max_length, stride=stride)
    windows = [row[1:-1] for row in rows(encoding)]
    ids = BERT.encode(text)
    joined = windows[0] + [i for window in windows[1:] for i in window[stride:]]
    assert joined == ids
    assert all(len(window) == max_length - 2 for window in windows[:-1])
    assert all(len(window) > stride for window in windows[1:])
    assert encoding.overflow_to_sample_mapping.tolist() == [0] * len(windows)
    for row, spans, special in zip(
        encoding.input_ids, encoding.offset_mapping, encoding.special_tokens_mask, strict=True
    ):
        for i, (start, end), is_special in zip(row, spans, special, strict=True):
            assert is_special or BERT.decode([i]) == text[start:end]


def test_windows_of_the_second_text_keep_the_first_whole():
    encoding = BERT(
        ["ab", "c"],
        ["defghij", "d"],
        padding=True,
        truncation="only_second",
        max_length=8,
        stride=1,
    )
    a, b = BERT.encode("ab"), BERT.encode
    assert rows(encoding) == [
        [CLS, *a, SEP, *b("def"), SEP],
        [CLS, *a, SEP, *b("fgh"), SEP],
        [CLS, *a, SEP, *b("hij"), SEP],
        [CLS, *b("c"), SEP, *b("d"), SEP],
    ]
    assert encoding.overflow_to_sample_mapping.tolist() == [0, 0, 0, 1]


def test_no_texts_give_no_rows():
    assert BERT([]).input_ids.shape == (0, 0)
    assert BERT("", add_special_tokens=False).input_ids.shape == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ["a", "bc"]}, "expected rows of one length, got 3 to 4 tokens; pass padding"),
        ({"texts": ["a", "b"], "text_pair": ["c"]}, "expected a second text for each first"),
        ({"padding": "left"}, "expected padding to be one of"),
        ({"truncation": "middle", "max_length": 3}, "expected truncation to be one of"),
        ({"truncation": True}, "expected max_length with truncation"),
        ({"padding": "max_length"}, "expected max_length with truncation or padding"),
        ({"stride": 2}, "expected truncation with stride"),
        ({"truncation": "only_second", "max_length": 9}, "expected pairs with 'only_second'"),
        (
            {"text_pair": "b", "truncation": True, "max_length": 9, "stride": 1},
            "expected truncation 'only_first' or 'only_second' for windows of pairs",
        ),
        ({"truncation": True, "max_length": 1}, "got -1 of max_length 1"),
        ({"text_pair": "b", "truncation": True, "max_length": 2}, "got -1 of max_length 2"),
        (
            {"texts": "abcdef", "truncation": True, "max_length": 4, "stride": 2},
            "and for more than stride, got 2 of max_length 4",
        ),
        (
            {"texts": "[SEP]"},
            r"got the special token '\[SEP\]' at position 0; pass allowed_special",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        BERT(**{"texts": "a", **options})


def test_padding_needs_a_token_to_pad_with():
    with pytest.raises(ValueError, match="expected a special token to pad with, got none; make"):
        PLAIN(["a", "bc"], padding=True)
    assert PLAIN(["a", "b"], padding=True).input_ids.tolist() == [[0], [1]]


@pytest.mark.parametrize("options", [{"allowed_special": "all"}, {"disallowed_special": ()}])
def test_special_tokens_in_a_text_are_the_callers_choice(options):
    tokenizer = CharTokenizer("ab[SEP]", ["[SEP]"])
    expected = [7] if "allowed_special" in options else tokenizer.encode("ab")[:0] + [2, 3, 4, 5, 6]
    assert tokenizer.encode("[SEP]", **options) == expected
    assert tokenizer("[SEP]", **options).input_ids.tolist() == [expected]
    assert tokenizer.encode_batch(["[SEP]", ""], **options) == [expected, []]


@pytest.mark.parametrize("names", [{"allowed_special": "[SEP]"}, {"disallowed_special": ["[X]"]}])
def test_a_name_that_is_no_special_token_is_an_error(names):
    with pytest.raises(ValueError, match="to be 'all' or a set of special tokens .*'\\[SEP\\]'"):
        BERT.encode("a", **names)


# Templates and their file


TEMPLATES = [
    Template(),
    bert_template("[CLS]", "[SEP]"),
    Template((("$A", 3), ("[SEP]", 4)), (("$A", 0), ("[SEP]", 0), ("$B", 0), ("[SEP]", 0))),
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_read_back(template):
    assert (
        read_template(write_template(template, BERT.special_tokens), BERT.special_tokens)
        == template
    )
    tokenizer = CharTokenizer("abc", SPECIAL, template)
    assert CharTokenizer.from_json(tokenizer.to_json()).template == template


def test_the_processors_of_bert_and_roberta_are_templates():
    ids = {"<s>": 0, "</s>": 2}
    bert = {"type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]}
    assert read_template(bert, ids) == bert_template("<s>", "</s>")
    roberta = read_template({**bert, "type": "RobertaProcessing"}, ids)
    assert roberta.single == (("<s>", 0), ("$A", 0), ("</s>", 0))
    assert [name for name, _ in roberta.pair] == ["<s>", "$A", "</s>", "</s>", "$B", "</s>"]
    assert {kind for _, kind in roberta.pair} == {0}
    sequence = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, bert]}
    assert read_template(sequence, ids) == bert_template("<s>", "</s>")


def test_a_template_of_tokens_that_are_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"got added tokens \['x'\] and a template with \['y'\]"):
        CharTokenizer("abc", ["x"], Template((("y", 0), ("$A", 0))))
    with pytest.raises(ValueError, match="expected different tokens"):
        CharTokenizer("abc", ["x", AddedToken("x", special=False)])
    with pytest.raises(ValueError, match="expected different tokens"):
        CharTokenizer("abc", [""])


# Added tokens


def cut(text, *added):
    """The text as the added tokens cut it, `|` between the pieces, tokens in braces."""
    tokenizer = CharTokenizer("".join(sorted({*text, "x"})), added)
    ids, spans = tokenizer.encode_with_offsets(text, allowed_special="all")
    assert ids == tokenizer.encode(text, allowed_special="all")
    return "".join(
        f"{{{text[start:end]}}}" if i in tokenizer.added else text[start:end]
        for i, (start, end) in zip(ids, spans, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "token", "expected"),
    [
        ("aba", AddedToken("b"), "a{b}a"),
        ("a  b  a", AddedToken("b", lstrip=True), "a{  b}  a"),
        ("a  b  a", AddedToken("b", rstrip=True), "a  {b  }a"),
        ("b b ", AddedToken("b", lstrip=True, rstrip=True), "{b }{b }"),
        ("abc bca bc, bc_", AddedToken("bc", single_word=True), "abc bca {bc}, bc_"),
        ("a.b aXb", AddedToken("a.b"), "{a.b} aXb"),
        ("a b", AddedToken("a b"), "{a b}"),
    ],
)
def test_an_added_token_is_found_as_its_flags_say(text, token, expected):
    assert cut(text, token) == expected


def test_of_two_added_tokens_at_one_place_the_longer_is_found():
    for order in (["ab", "abc"], ["abc", "ab"]):
        assert cut("xabcab", *map(AddedToken, order)) == "x{abc}{ab}"
