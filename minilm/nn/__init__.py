"""Module and the layers."""

from minilm.nn.attention import KeyValueCache, MultiHeadAttention
from minilm.nn.layers import Dropout, Embedding, FeedForward, LayerNorm, Linear, RMSNorm, SwiGLU
from minilm.nn.module import Module, evaluation_mode, parameter
from minilm.nn.positions import Rotary, sinusoidal_positions

__all__ = [
    "Dropout",
    "Embedding",
    "FeedForward",
    "KeyValueCache",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "RMSNorm",
    "Rotary",
    "SwiGLU",
    "evaluation_mode",
    "parameter",
    "sinusoidal_positions",
]
