"""Roles: what a model uses its special tokens for, under the names that `transformers` has."""

from collections.abc import Container

END_OF_TEXT = "<|endoftext|>"
ROLES = {  # and the names of tokens that are for it, the more usual ones first
    "bos": ("<s>", END_OF_TEXT),
    "eos": ("</s>", END_OF_TEXT),
    "unk": ("[UNK]", "<unk>"),
    "sep": ("[SEP]",),
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "cls": ("[CLS]",),
    "mask": ("[MASK]", "<mask>"),
}


def find_roles(special_tokens: Container[str]) -> dict[str, str]:
    """Of each role that one of the tokens is named for, that token."""
    found = {role: [x for x in names if x in special_tokens] for role, names in ROLES.items()}
    return {role: tokens[0] for role, tokens in found.items() if tokens}


def _token_of(role: str) -> property:
    def token(self: "HasRoles") -> str | None:
        return self.roles.get(role)

    return property(token, doc=f"The token with the role {role}.")


def _id_of(role: str) -> property:
    def token_id(self: "HasRoles") -> int | None:
        token = getattr(self, f"{role}_token")
        return None if token is None else self.ids[token]

    return property(token_id, doc=f"The id of {role}_token.")


class HasRoles:
    """The token of each of its `roles`, and that one's id; None where there is none."""

    roles: dict[str, str]
    ids: dict[str, int]  # of all tokens

    bos_token, bos_token_id = _token_of("bos"), _id_of("bos")
    eos_token, eos_token_id = _token_of("eos"), _id_of("eos")
    unk_token, unk_token_id = _token_of("unk"), _id_of("unk")
    sep_token, sep_token_id = _token_of("sep"), _id_of("sep")
    cls_token, cls_token_id = _token_of("cls"), _id_of("cls")
    mask_token, mask_token_id = _token_of("mask"), _id_of("mask")
    pad_token_id = _id_of("pad")

    @property
    def pad_token(self) -> str | None:
        """The token that fills rows up: where none has that role, the end of a text."""
        return self.roles.get("pad", END_OF_TEXT if END_OF_TEXT in self.ids else None)
