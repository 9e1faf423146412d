"""The tasks that can be read by name, one row each."""

from dataclasses import KW_ONLY, dataclass

CLASSES, NUMBER = "sequence_classification", "regression"
TAGS, SPAN, CHOICE = "token_classification", "question_answering", "multiple_choice"
FORMATS = {  # and the heads that each has examples for
    "tsv": (CLASSES, NUMBER),
    "csv": (CLASSES, NUMBER),
    "jsonl": (CLASSES, NUMBER, CHOICE),
    "squad": (SPAN,),
    "race": (CHOICE,),
    "conll": (TAGS,),
}
METRICS = (
    *("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"),
    *("entity_f1", "squad_f1", "exact_match"),
)


@dataclass(frozen=True)
class Task:
    """Where a task's file holds texts and labels, and how a model answers and is judged.

    `text`, `text_pair` and `label` are names of columns ("tsv", "csv") or keys. `labels` are the
    classes by index; None: those of the training file, see `collect_labels`. The first of the
    `metrics` is the one to compare models by.

    Columns are found by the names in a header; others are passed over. A task with `layouts` also
    reads files without a header, the number of columns choosing the layout: there the first row is
    a header if `text` stands in it, and `label` too, or nothing but field names and "index". So
    the plain "tsv" and "csv" take 2 columns as text and label, 3 as text, text_pair and label.

    Raises: ValueError — a format or metric that does not exist, a head that is not the format's.
    """

    name: str
    format: str
    head: str
    metrics: tuple[str, ...]
    text: str
    text_pair: str | None
    label: str
    labels: tuple[str, ...] | None
    _: KW_ONLY
    layouts: tuple[tuple[str, ...], ...] = ()
    pair_optional: bool = False
    word: str | None = None  # the key of a word that is put before the text: "word: text"
    choices: tuple[str, ...] = ()  # the keys of the choices
    questions: tuple[tuple[str, str], ...] = ()  # values of "question", each with what it asks
    unanswerable: bool = False  # whether questions without an answer are part of the task

    def __post_init__(self) -> None:
        heads = FORMATS.get(self.format, ())
        for value, known in (
            *((self.format, FORMATS), (self.head, heads)),
            *((metric, METRICS) for metric in self.metrics),
        ):
            if value not in known:
                raise ValueError(
                    f"task {self.name}: expected one of {', '.join(known)}, got {value!r}; look "
                    "for a row in TASKS that is like it"
                )


ACCURACY, ENTAILED = ("accuracy",), ("entailment", "not_entailment")
COPA_QUESTIONS = (
    ("cause", "What was the cause of this?"),
    ("effect", "What happened because of this?"),
)
PLAIN = (("text", "label"), ("text", "text_pair", "label"))
# fmt: off
ROWS = (
    # GLUE: Wang et al. 2018, arXiv 1804.07461
    Task("cola", "tsv", CLASSES, ("matthews",), "sentence", None, "label", ("0", "1"),
         layouts=(("source", "label", "mark", "sentence"),)),
    Task("sst2", "tsv", CLASSES, ACCURACY, "sentence", None, "label", ("0", "1")),
    Task("mrpc", "tsv", CLASSES, ("f1", "accuracy"), "#1 String", "#2 String", "Quality",
         ("0", "1")),
    Task("stsb", "tsv", NUMBER, ("pearson", "spearman"), "sentence1", "sentence2", "score", None),
    Task("qqp", "tsv", CLASSES, ("f1", "accuracy"), "question1", "question2", "is_duplicate",
         ("0", "1")),
    Task("mnli", "tsv", CLASSES, ACCURACY, "sentence1", "sentence2", "gold_label",
         ("entailment", "neutral", "contradiction")),
    Task("qnli", "tsv", CLASSES, ACCURACY, "question", "sentence", "label", ENTAILED),
    Task("rte", "tsv", CLASSES, ACCURACY, "sentence1", "sentence2", "label", ENTAILED),
    Task("wnli", "tsv", CLASSES, ACCURACY, "sentence1", "sentence2", "label", ("0", "1")),
    # SuperGLUE: Wang et al. 2019, arXiv 1905.00537
    Task("boolq", "jsonl", CLASSES, ACCURACY, "question", "passage", "label", ("false", "true")),
    Task("cb", "jsonl", CLASSES, ("accuracy", "macro_f1"), "premise", "hypothesis", "label",
         ("entailment", "contradiction", "neutral")),
    Task("copa", "jsonl", CHOICE, ACCURACY, "premise", None, "label", None,
         choices=("choice1", "choice2"), questions=COPA_QUESTIONS),
    Task("wic", "jsonl", CLASSES, ACCURACY, "sentence1", "sentence2", "label", ("false", "true"),
         word="word"),
    Task("superglue_rte", "jsonl", CLASSES, ACCURACY, "premise", "hypothesis", "label", ENTAILED),
    # Rajpurkar et al. 2016, arXiv 1606.05250, and 2018, arXiv 1806.03822
    Task("squad", "squad", SPAN, ("squad_f1", "exact_match"), "context", "question", "answers",
         None),
    Task("squad2", "squad", SPAN, ("squad_f1", "exact_match"), "context", "question", "answers",
         None, unanswerable=True),
    # Lai et al. 2017, arXiv 1704.04683
    Task("race", "race", CHOICE, ACCURACY, "article", None, "answers", None),
    # Tjong Kim Sang & De Meulder 2003, arXiv cs/0306050: the word first, its tag last
    Task("conll", "conll", TAGS, ("entity_f1",), "words", None, "tags", None),
    # A file of one's own
    Task("tsv", "tsv", CLASSES, ACCURACY, "text", "text_pair", "label", None,
         layouts=PLAIN, pair_optional=True),
    Task("csv", "csv", CLASSES, ACCURACY, "text", "text_pair", "label", None,
         layouts=PLAIN, pair_optional=True),
    Task("jsonl", "jsonl", CLASSES, ACCURACY, "text", "text_pair", "label", None,
         pair_optional=True),
)
# fmt: on
TASKS: dict[str, Task] = {task.name: task for task in ROWS}
