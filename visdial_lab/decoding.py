"""Writing answers token by token, many rows at once, on keys and values that were read before."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visdial_lab import chat
from visdial_lab.errors import UserError
from visdial_lab.models import without_wrapper

if TYPE_CHECKING:
    import torch

Past = list[tuple["torch.Tensor", "torch.Tensor"]]  # of each layer keys, values: [rows, heads, tokens, width]


def check_length(model: Any, length: int, new: int) -> None:
    """Raise UserError if `new` tokens behind the `length` of a conversation are too many."""
    limit = model.config.get_text_config().max_position_embeddings
    if length + new > limit:
        wanted = f"with {new} new ones the model reads {limit}"
        raise UserError(f"the conversation has {length} tokens; {wanted}")


def read(model: Any, batch: dict[str, "torch.Tensor"], past: Past | None = None) -> Past:
    """Keys and values of a padded batch [B, T], behind those of `past`."""
    from transformers import DynamicCache

    # without a config the cache keeps whole sequences, also for sliding-window layers
    cache = DynamicCache(past) if past else DynamicCache()
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    without_wrapper(model).base_model(**batch, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def read_on(model: Any, chunks: list[list[int]], past: Past, lengths: Sequence[int]) -> Past:
    """Keys and values of more tokens for each row, behind `past`; of its columns the last `lengths` count."""
    import torch

    known, width = past[0][0].shape[2], max(map(len, chunks))
    sizes, lengths = torch.tensor([len(chunk) for chunk in chunks])[:, None], torch.tensor(lengths)[:, None]
    behind = torch.arange(width)
    batch = {
        "input_ids": torch.tensor([chunk + [0] * (width - len(chunk)) for chunk in chunks]),
        "attention_mask": torch.cat([torch.arange(known) >= known - lengths, behind < sizes], dim=1).long(),
        "position_ids": lengths + behind,
    }
    return read(model, batch, past)


def cut(found: Past, rows: Sequence[int], ends: Sequence[int], lengths: Sequence[int]) -> Past:
    """The `lengths` columns before column `ends` of these rows, aligned on the right (what is left of them
    is no row's own)."""
    import torch

    device = found[0][0].device
    columns = torch.arange(max(lengths)) + torch.tensor(ends)[:, None] - max(lengths)
    columns, own = columns.clamp(min=0).to(device), torch.tensor(rows, device=device)[:, None]
    return [
        (keys[own, :, columns].transpose(1, 2), values[own, :, columns].transpose(1, 2))
        for keys, values in found
    ]


def generate(
    model: Any,
    processor: Any,
    prompts: list[list[int]],
    past: Past,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stream: bool = False,
) -> list[str]:
    """What the model says after each prompt, up to the end of its turn.

    past: keys and values of all tokens of a prompt but the last, aligned on the right.
    Raises UserError for settings out of range.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import DynamicCache, TextStreamer

    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        given = f"max_new_tokens {max_new_tokens}, temperature {temperature}, top_p {top_p}"
        raise UserError(f"{given}: expected at least 1, at least 0, and above 0 up to 1")
    tokenizer = chat.tokenizer_of(processor)
    rows = [torch.tensor(ids, device=model.device) for ids in prompts]
    seen = pad_sequence([torch.ones_like(ids) for ids in rows], batch_first=True, padding_side="left")
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    torch.manual_seed(seed)
    output = model.generate(
        input_ids=pad_sequence(rows, batch_first=True, padding_side="left"),
        attention_mask=seen,
        past_key_values=DynamicCache(past),
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=[tokenizer.convert_tokens_to_ids(chat.END)],
        pad_token_id=tokenizer.pad_token_id,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
        **sampling,
    )
    return [
        text.strip() for text in tokenizer.batch_decode(output[:, seen.shape[1] :], skip_special_tokens=True)
    ]
