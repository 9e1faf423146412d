"""Module and the layers."""

from minilm.nn.attention import KeyValueCache, KeyValues, MultiHeadAttention
from minilm.nn.layers import Dropout, Embedding, FeedForward, LayerNorm, Linear, RMSNorm, SwiGLU
from minilm.nn.module import Module, evaluation_mode, parameter
from minilm.nn.positions import (
    RelativePositionBias,
    Rotary,
    relative_position_bucket,
    sinusoidal_positions,
)
from minilm.nn.recurrent import LSTM, RecurrentState

__all__ = [
    "Dropout",
    "Embedding",
    "FeedForward",
    "KeyValueCache",
    "KeyValues",
    "LSTM",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "RMSNorm",
    "RecurrentState",
    "RelativePositionBias",
    "Rotary",
    "SwiGLU",
    "evaluation_mode",
    "parameter",
    "relative_position_bucket",
    "sinusoidal_positions",
]
