"""The tables of names: every row is of some model, and the chapter prints what the code has."""

import re
from pathlib import Path

import pytest
from pretrained.layout import MODELS

from minilm.models.gpt import GPT
from minilm.models.llama import Llama
from minilm.models.t5 import T5
from minilm.pretrained import bert, gpt2, llama, t5
from minilm.pretrained.architecture import LaterDraws
from minilm.pretrained.bert import kind_of
from minilm.pretrained.directory import LAYOUTS

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "13-pretrained.md"
TABLES = {
    "GPT-2": gpt2.NAMES,
    "Llama": llama.NAMES,
    "BERT": bert.BERT_BODY | bert.BERT_HEADS,
    "RoBERTa": bert.ROBERTA_HEADS,
    "DistilBERT": bert.DISTILBERT_BODY | bert.DISTILBERT_HEADS,
    "T5": t5.NAMES,
}
# What the chapter says it leaves out: k and v, what is BERT's too, what both stacks of T5 have.
LEFT_OUT = {
    "GPT-2": "-",
    "Llama": r"attention\.[kv]$",
    "BERT": r"attention\.[kv]",
    "RoBERTa": "classifier",
    "DistilBERT": r"attention\.[kv]|_embedding$|^norm$|classifier",
    "T5": r"attention\.[kv]|^decoder\.(relative|final|blocks\.#\.(norm1|attention))",
}


def test_every_row_of_every_table_is_of_some_model():
    rows, used = set(), set()
    for model_class, config in MODELS.values():
        for kind, layout in LAYOUTS.items():
            for head, known in layout.heads.items():
                if known.model is model_class and (
                    model_class in (GPT, Llama, T5) or kind_of(config) == kind
                ):
                    model = model_class(config, LaterDraws())
                    names = {re.sub(r"\.\d+\.", ".#.", key) for key, _ in model.named_parameters()}
                    names |= {name.rpartition(".")[0] for name in names}
                    table = layout.names(config, head)
                    rows |= {(kind, ours) for ours in table}
                    used |= {(kind, ours) for ours in table if ours in names}
    assert len(rows) > 100 and rows == used


@pytest.mark.parametrize("heading", TABLES)
def test_the_chapter_prints_the_tables_of_the_code(heading):
    section = CHAPTER.read_text().split(f"### {heading}\n")[1].split("\n#")[0]
    rows = dict(re.findall(r"^\| `([^`]*)` \| `([^`]*)` \|$", section, re.MULTILINE))
    printed = {ours: theirs.replace("\\|", "|") for ours, theirs in rows.items()}
    missing = {ours for ours in TABLES[heading] if re.search(LEFT_OUT[heading], ours)}
    assert printed == {o: t for o, t in TABLES[heading].items() if o not in missing}
