"""What a model is fine-tuned for: files to examples, to rows of tokens, and predictions back."""

from minilm.tasks.examples import (
    ChoiceExample,
    Example,
    SpanExample,
    TaggedExample,
    TextExample,
)
from minilm.tasks.features import Features
from minilm.tasks.predictions import HEADS, gold, score
from minilm.tasks.readers import Reading, TaskFileError, collect_labels, read_task
from minilm.tasks.table import TASKS, Task

__all__ = [
    "HEADS",
    "TASKS",
    "ChoiceExample",
    "Example",
    "Features",
    "Reading",
    "SpanExample",
    "TaggedExample",
    "Task",
    "TaskFileError",
    "TextExample",
    "collect_labels",
    "gold",
    "read_task",
    "score",
]
