"""Gradients of whole layers and models, for their inputs and every parameter."""

import numpy as np
from gradcheck import gradcheck


def check_gradients(function, inputs=(), module=None, seed=0):
    """gradcheck of `function(*inputs)` by the inputs and by the parameters of `module`.

    A parameter is an input like any other: for each call a tensor of the check takes its place.
    """
    named = {} if module is None else dict(module.named_parameters())
    owners = {} if module is None else dict(module.named_modules())

    def place(tensors):
        for name, tensor in zip(named, tensors, strict=True):
            owner, _, attribute = name.rpartition(".")
            setattr(owners[owner], attribute, tensor)

    def substituted(*tensors):
        place(tensors[len(inputs) :])
        return function(*tensors[: len(inputs)])

    try:
        arrays = [*inputs, *(p.data for p in named.values())]
        gradcheck(substituted, arrays, np.random.default_rng(seed))
    except AssertionError as error:
        raise AssertionError(f"{error}; after {len(inputs)} inputs come {list(named)}") from error
    finally:
        place(named.values())
