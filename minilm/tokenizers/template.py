"""Templates: the special tokens that a model wants around one text or a pair of texts."""

from dataclasses import dataclass
from typing import Any

from minilm.tokenizers.files import check

Piece = tuple[str, int]  # "$A", "$B" or a special token; its token type
TEXTS = ("$A", "$B")


@dataclass(frozen=True)
class Template:
    """What stands around a text $A, and around a pair $A, $B; each piece with its token type.

    >>> bert = Template((("[CLS]", 0), ("$A", 0), ("[SEP]", 0)))
    >>> bert.single
    (('[CLS]', 0), ('$A', 0), ('[SEP]', 0))
    """

    single: tuple[Piece, ...] = (("$A", 0),)
    pair: tuple[Piece, ...] = (("$A", 0), ("$B", 1))

    def tokens(self) -> set[str]:
        """The special tokens in it."""
        return {piece for piece, _ in (*self.single, *self.pair)} - set(TEXTS)


PLAIN = Template()


def write_template(template: Template, ids: dict[str, int]) -> dict[str, Any] | None:
    """The "post_processor" of a tokenizer file."""
    if template == PLAIN:
        return None

    def shown(piece: Piece) -> dict[str, Any]:
        name, type_id = piece
        if name in TEXTS:
            return {"Sequence": {"id": name[1], "type_id": type_id}}
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    return {
        "type": "TemplateProcessing",
        "single": [shown(piece) for piece in template.single],
        "pair": [shown(piece) for piece in template.pair],
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]}
            for name in sorted(template.tokens())
        },
    }


def read_template(processor: Any, ids: dict[str, int]) -> Template:
    """The template in a "post_processor", whose special tokens must be in `ids`.

    Raises: TokenizerError — a processor of another kind, or one that names other tokens.
    """
    match processor:
        case None | {"type": "ByteLevel"}:  # the latter shifts offsets only
            return PLAIN
        case {"type": "Sequence", "processors": list(parts)}:
            found = [read_template(part, ids) for part in parts]
            return next((template for template in found if template != PLAIN), PLAIN)
        case {"type": "TemplateProcessing", "single": list(single), "pair": list(pair)}:
            template = Template(tuple(map(_read_piece, single)), tuple(map(_read_piece, pair)))
        case {"type": "BertProcessing", "cls": [str(cls), _], "sep": [str(sep), _]}:
            template = bert_template(cls, sep)
        case {"type": "RobertaProcessing", "cls": [str(cls), _], "sep": [str(sep), _]}:
            around = ((cls, 0), ("$A", 0), (sep, 0))
            template = Template(around, (*around, (sep, 0), ("$B", 0), (sep, 0)))
        case _:
            check(False, "a template as post_processor", processor)
            raise AssertionError
    forms = (template.single, template.pair)
    texts = [[name for name, _ in form if name in TEXTS] for form in forms]
    check(texts == [["$A"], ["$A", "$B"]], "$A in a single template, $A and $B in a pair", texts)
    unknown = sorted(template.tokens() - set(ids))
    check(not unknown, "a template of known tokens", unknown)
    return template


def bert_template(cls: str, sep: str) -> Template:
    """[CLS] A [SEP] of type 0, then B [SEP] of type 1.

    Source: Devlin et al. 2018, arXiv 1810.04805, figure 2.
    """
    single = ((cls, 0), ("$A", 0), (sep, 0))
    return Template(single, (*single, ("$B", 1), (sep, 1)))


def _read_piece(piece: Any) -> Piece:
    match piece:
        case {"Sequence": {"id": "A" | "B" as name, "type_id": int(type_id)}}:
            return f"${name}", type_id
        case {"SpecialToken": {"id": str(name), "type_id": int(type_id)}}:
            return name, type_id
    check(False, "a template of sequences and special tokens", piece)
    raise AssertionError
