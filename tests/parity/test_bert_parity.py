"""BERT, RoBERTa and every head: outputs, loss and gradients equal those of transformers."""

import re

import numpy as np
import pytest

from minilm.finetuning import class_weights
from minilm.models.bert import BertConfig, roberta_config
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

torch = pytest.importorskip("torch", reason="needs the extra: pip install minilm[parity]")
transformers = pytest.importorskip(
    "transformers", reason="needs the extra: pip install minilm[parity]"
)


SIZE = {"vocab_size": 37, "max_len": 12, "d_model": 16, "n_heads": 4, "n_layers": 2, "d_ff": 24}
NAMES = [
    (r"token_embedding", "embeddings.word_embeddings"),
    (r"position_embedding", "embeddings.position_embeddings"),
    (r"type_embedding", "embeddings.token_type_embeddings"),
    (r"^(\w+)\.norm\.", r"\1.embeddings.LayerNorm."),
    (r"blocks\.(\d+)", r"encoder.layer.\1"),
    (r"attention\.q\b", "attention.self.query"),
    (r"attention\.k\b", "attention.self.key"),
    (r"attention\.v\b", "attention.self.value"),
    (r"attention\.out", "attention.output.dense"),
    (r"norm1", "attention.output.LayerNorm"),
    (r"feed_forward\.up", "intermediate.dense"),
    (r"feed_forward\.down", "output.dense"),
    (r"norm2", "output.LayerNorm"),
]
BERT_HEADS = [
    (r"pooler", "pooler.dense"),
    (r"^masked\.embeddings\.LayerNorm", "cls.predictions.transform.LayerNorm"),
    (r"^masked\.dense", "cls.predictions.transform.dense"),
    (r"^masked\.bias", "cls.predictions.bias"),
    (r"^next_sentence", "cls.seq_relationship"),
]
ROBERTA_HEADS = [
    (r"^bert\.pooler", "classifier.dense"),
    (r"^classifier\.(?=weight|bias)", "classifier.out_proj."),
    (r"^bert\.", "roberta."),
    (r"^masked\.embeddings\.LayerNorm", "lm_head.layer_norm"),
    (r"^masked\.dense", "lm_head.dense"),
    (r"^masked\.bias", "lm_head.bias"),
]


def batch(name, rng):
    """The inputs and labels of one head: rows of different lengths, both token types."""
    shape = (3, 4, 9) if name == "multiple choice" else (6, 9)
    ids = rng.integers(5, 37, shape)
    mask = (np.arange(9) < rng.integers(5, 10, (*shape[:-1], 1))).astype(int)
    types = (np.arange(9) > 4).astype(int) * mask
    labels = np.where(rng.random(shape) < 0.3, rng.integers(0, 37, shape), -100)
    rows = shape[0]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, {
        "pre-training": {"labels": labels, "next_sentence_label": rng.integers(0, 2, rows)},
        "masked": {"labels": labels},
        "classification": {"labels": rng.integers(0, 3, rows)},
        "regression": {"labels": rng.normal(size=rows)},
        "tokens": {"labels": np.where(labels < 0, -100, labels % 3)},
        "answers": {
            "start_positions": rng.integers(0, 5, rows),
            "end_positions": rng.integers(0, 5, rows),
        },
        "multiple choice": {"labels": rng.integers(0, 4, rows)},
    }[name]


HEADS = {
    "pre-training": (BertForPreTraining, "BertForPreTraining", 2),
    "masked": (BertForMaskedLM, "BertForMaskedLM", 2),
    "classification": (BertForSequenceClassification, "BertForSequenceClassification", 3),
    "regression": (BertForSequenceClassification, "BertForSequenceClassification", 1),
    "tokens": (BertForTokenClassification, "BertForTokenClassification", 3),
    "answers": (BertForQuestionAnswering, "BertForQuestionAnswering", 2),
    "multiple choice": (BertForMultipleChoice, "BertForMultipleChoice", 2),
}
CASES = [(name, False) for name in HEADS] + [
    ("masked", True),
    ("classification", True),
    ("tokens", True),
]


def build(name, roberta, dtype):
    """Our model and theirs with the same weights, biases and gains away from 0 and 1."""
    ours_class, theirs_name, n_labels = HEADS[name]
    rng = np.random.default_rng(0)
    make = roberta_config if roberta else BertConfig
    config = make(**SIZE, n_labels=n_labels, init_std=0.5)
    ours = ours_class(config, rng).astype(dtype)
    for tensor in ours.parameters():
        tensor[...] = tensor.data + rng.normal(0, 0.1, tensor.shape)
    shared = {
        "vocab_size": 37,
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 12 + config.first_position,
        "type_vocab_size": config.n_token_types,
        "layer_norm_eps": config.layer_norm_eps,
        "num_labels": n_labels,
        "attn_implementation": "eager",
    }
    if roberta:
        theirs_name = theirs_name.replace("Bert", "Roberta")
        settings = transformers.RobertaConfig(**shared, pad_token_id=1)
    else:
        settings = transformers.BertConfig(**shared)
    theirs = getattr(transformers, theirs_name)(settings).to(
        torch.float64 if dtype == np.float64 else torch.float32
    )
    names = {key: theirs_key(key, name, roberta) for key in ours.state_dict()}
    own = dict(theirs.named_parameters())
    used = {key: value for key, value in names.items() if value in own}
    unused = set(names) - set(used)
    assert all("pooler" in key for key in unused), unused
    with torch.no_grad():
        for key, value in used.items():
            own[value].copy_(torch.from_numpy(ours.state_dict()[key]))
    missing = set(own) - set(used.values())
    assert not missing, missing
    return ours, theirs, used


def theirs_key(key, name, roberta):
    for pattern, new in [*NAMES, *(ROBERTA_HEADS if roberta else BERT_HEADS)]:
        key = re.sub(pattern, new, key)
    if name == "answers":
        key = key.replace("classifier", "qa_outputs")
    if roberta and name == "tokens":
        key = key.replace("classifier.out_proj", "classifier")
    return key


@pytest.mark.parametrize("name", ["classification", "tokens"])
def test_the_weighted_loss_and_its_gradients_equal_those_of_torch(name):
    ours, theirs, used = build(name, False, np.float64)
    inputs, labels = batch(name, np.random.default_rng(1))
    ours.eval(), theirs.eval()
    ours.class_weights = np.array([0.1, 2.5, 0.7])
    mine = ours(**inputs, **labels)
    logits = theirs(**{key: torch.from_numpy(value) for key, value in inputs.items()}).logits
    loss = torch.nn.CrossEntropyLoss(weight=torch.from_numpy(ours.class_weights))
    his = loss(logits.reshape(-1, 3), torch.from_numpy(labels["labels"]).reshape(-1))
    assert mine.loss.item() == pytest.approx(his.item(), rel=1e-12)
    mine.loss.backward()
    his.backward()
    own = dict(theirs.named_parameters())
    for key, tensor in ours.named_parameters():
        if key in used and own[used[key]].grad is not None:
            expected = own[used[key]].grad.numpy()
            np.testing.assert_allclose(tensor.grad, expected, rtol=1e-9, atol=1e-12)


def test_balanced_class_weights_equal_scikit_learns():
    sklearn = pytest.importorskip("sklearn.utils.class_weight", reason="needs scikit-learn")
    for seed in range(50):
        rng = np.random.default_rng(seed)
        n_classes = rng.integers(1, 6)
        labels = np.append(np.arange(n_classes), rng.integers(0, n_classes, rng.integers(0, 40)))
        expected = sklearn.compute_class_weight("balanced", classes=np.arange(n_classes), y=labels)
        np.testing.assert_array_equal(class_weights(labels, n_classes), expected)


@pytest.mark.parametrize(("name", "roberta"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_outputs_loss_and_gradients_equal_those_of_transformers(name, roberta, dtype, tolerance):
    ours, theirs, used = build(name, roberta, dtype)
    inputs, labels = batch(name, np.random.default_rng(1))
    if roberta:
        inputs["token_type_ids"] = np.zeros_like(inputs["token_type_ids"])
    ours.eval(), theirs.eval()
    asked = {"output_hidden_states": True, "output_attentions": True}
    mine = ours(**inputs, **labels, **asked)
    torch_batch = {key: torch.from_numpy(value) for key, value in {**inputs, **labels}.items()}
    if name == "regression":
        torch_batch["labels"] = torch_batch["labels"].to(theirs.dtype)
    his = theirs(**torch_batch, **asked)

    def same(a, b):
        expected = b.detach().numpy()
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(a, expected, rtol=tolerance, atol=tolerance * scale)

    same(mine.loss.data, his.loss)
    kept = labels.get("labels", np.zeros(1)) != -100
    for field in (
        "logits",
        "seq_relationship_logits",
        "prediction_logits",
        "start_logits",
        "end_logits",
    ):
        if getattr(mine, field) is None:
            continue
        value = getattr(his, field)
        only_labelled = field == "prediction_logits" or (field, name) == ("logits", "masked")
        same(getattr(mine, field).data, value[torch.from_numpy(kept)] if only_labelled else value)
    real = inputs["attention_mask"].reshape(-1, 9).astype(bool)
    for a, b in zip(mine.hidden_states, his.hidden_states, strict=True):
        same(a.data[real], b[torch.from_numpy(real)])
    for a, b in zip(mine.attentions, his.attentions, strict=True):
        same(a, b)
    mine.loss.backward()
    his.loss.backward()
    own = dict(theirs.named_parameters())
    for key, tensor in ours.named_parameters():
        if key in used and own[used[key]].grad is not None:
            same(tensor.grad, own[used[key]].grad)
