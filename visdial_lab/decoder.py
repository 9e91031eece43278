"""Gemma-3's decoder layers, opened up: any mask, and any keys and values before the tokens' own.

`transformers` keeps one cache a sequence. Here many rows stand behind the same trunk, whose keys and values
are joined to a row's own one layer at a time. The arithmetic is that of `Gemma3DecoderLayer.forward`, on the
model's own modules, so LoRA matrices and 4-bit weights take part; what lies between the matrix products is in
small functions that a compiler can make one GPU kernel each.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from visdial_lab.errors import UserError, shown

if TYPE_CHECKING:
    import torch

KeysValues = tuple["torch.Tensor", "torch.Tensor"]  # each [B, key heads, length, head width]


def check_config(config: Any) -> None:
    """Raise UserError for what `transformers` allows a Gemma-3, but the code below leaves out."""
    usual = {"hidden_activation": "gelu_pytorch_tanh", "use_bidirectional_attention": False}
    for name in (*usual, "attn_logit_softcapping", "final_logit_softcapping"):
        found, expected = getattr(config, name, None), usual.get(name)
        if found not in (expected, None):
            raise UserError(f"config.json of the model: {name} is {found}; ranking needs {shown(expected)}")


def norm(x: "torch.Tensor", weight: "torch.Tensor", eps: float) -> "torch.Tensor":
    """Gemma's RMSNorm: scaled to mean square 1 in float32, times 1 + weight."""
    wide = x.float()
    wide = wide * (wide.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * (1.0 + weight.float())).type_as(x)


def add_norm(
    residual: "torch.Tensor", x: "torch.Tensor", after: "torch.Tensor", before: "torch.Tensor", eps: float
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """(residual + norm(x), and that normed for what comes next)."""
    residual = residual + norm(x, after, eps)
    return residual, norm(residual, before, eps)


def rotate(x: "torch.Tensor", weight: "torch.Tensor", cos: "torch.Tensor", sin: "torch.Tensor", eps: float):
    """Queries or keys [B, L, heads, D], normed, then rotated by their positions (cos, sin [B, L, 1, D])."""
    import torch

    x = norm(x, weight, eps)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def gate(x: "torch.Tensor", up: "torch.Tensor") -> "torch.Tensor":
    """The MLP's gated activation."""
    import torch

    return torch.nn.functional.gelu(x, approximate="tanh") * up


def log_norm(logits: "torch.Tensor") -> "torch.Tensor":
    """log Σ exp of the logits [S, V], in float32."""
    return logits.float().logsumexp(-1)


_PIECES = (norm, add_norm, rotate, gate, log_norm)


@functools.cache
def pieces(compiled: bool) -> SimpleNamespace:
    """The functions above, as they are or as compiled kernels (some seconds when they first run)."""
    import torch

    wrap = functools.partial(torch.compile, dynamic=True) if compiled else lambda function: function
    return SimpleNamespace(**{function.__name__: wrap(function) for function in _PIECES})


def run_layers(
    text_model: Any,
    hidden: "torch.Tensor",
    positions: "torch.Tensor",
    sees: "torch.Tensor",
    distance: "torch.Tensor",
    join: Callable[[int, "torch.Tensor", "torch.Tensor"], KeysValues],
    piece: SimpleNamespace,
) -> "torch.Tensor":
    """Embeddings [B, L, D] at positions [B, L] → the last layer's hidden states, normed, [B, L, D].

    sees [B, L, K]: which keys a token may attend to; distance [B, L, K]: how many positions it stands behind
    them, for the layers with a sliding window. join(layer, keys, values) gets a layer's own keys and values
    [B, key heads, L, head width] and returns those to attend to [B, key heads, K, head width].
    """
    config, layers = text_model.config, text_model.layers
    groups = config.num_attention_heads // config.num_key_value_heads
    masks, turns = {}, {}
    for kind in set(config.layer_types):
        near = sees & (distance < config.sliding_window) if kind == "sliding_attention" else sees
        masks[kind] = _additive(near, hidden.dtype, groups)
        turns[kind] = [part[:, :, None] for part in text_model.rotary_emb(hidden, positions, kind)]
    eps = config.rms_norm_eps
    norms = [layer.input_layernorm.weight for layer in layers] + [text_model.norm.weight]
    x = piece.norm(hidden, norms[0], eps)
    for number, (layer, kind) in enumerate(zip(layers, config.layer_types, strict=True)):
        attention, mlp = layer.self_attn, layer.mlp
        heads = (*x.shape[:2], -1, attention.head_dim)
        queries = piece.rotate(attention.q_proj(x).view(heads), attention.q_norm.weight, *turns[kind], eps)
        keys = piece.rotate(attention.k_proj(x).view(heads), attention.k_norm.weight, *turns[kind], eps)
        values = attention.v_proj(x).view(heads)
        keys, values = join(number, keys.transpose(1, 2), values.transpose(1, 2))
        mixed = _attend(queries, keys, values, masks[kind], attention.scaling)
        after, before = layer.post_attention_layernorm.weight, layer.pre_feedforward_layernorm.weight
        hidden, x = piece.add_norm(hidden, attention.o_proj(mixed), after, before, eps)
        x = mlp.down_proj(piece.gate(mlp.gate_proj(x), mlp.up_proj(x)))
        hidden, x = piece.add_norm(hidden, x, layer.post_feedforward_layernorm.weight, norms[number + 1], eps)
    return x


def _attend(
    queries: "torch.Tensor", keys: "torch.Tensor", values: "torch.Tensor", mask: "torch.Tensor", scale: float
) -> "torch.Tensor":
    """queries [B, L, heads, D] over keys and values [B, key heads, K, D] → [B, L, heads · D].

    The heads that share a key head stand one behind the other as if they were more tokens (mask [B, 1,
    groups · L, K] repeats itself for them): the keys need not be copied for each.
    """
    import torch

    batch, length, _, width = queries.shape
    shared = keys.shape[1]
    # [B, L, key heads, groups, D] → [B, key heads, groups, L, D]
    queries = queries.view(batch, length, shared, -1, width).permute(0, 2, 3, 1, 4)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        queries.reshape(batch, shared, -1, width), keys, values, attn_mask=mask, scale=scale
    )
    mixed = mixed.view(batch, shared, -1, length, width).permute(0, 3, 1, 2, 4)
    return mixed.reshape(batch, length, -1)


def _additive(sees: "torch.Tensor", dtype: Any, groups: int) -> "torch.Tensor":
    """What may be seen [B, L, K] → 0 or a huge negative number [B, 1, groups · L, K], which is added."""
    import torch

    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(
        ~sees, torch.finfo(dtype).min
    )
    return mask.repeat(1, groups, 1)[:, None]
