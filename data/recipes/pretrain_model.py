"""What pre-training does with the model: how it starts, its loss, its optimizer, how it is judged."""

import math
from pathlib import Path

import pretrain_data
from pretrain_data import IMAGE_TOKENS

LAST_RATE, WARM_UP = (
    0.02,
    0.02,
)  # the last learning rate, relative to the peak; warm-up, relative to the schedule


def build_model(vocabulary_size: int, seed: int):
    """A fresh `Gemma3ForConditionalGeneration` in float32.

    In transformers the projection from the vision tower starts as zeros, which keeps the tower from
    learning at first. Here it starts at the scale of the word embeddings.
    """
    import torch
    from gemma3_scenes import build_config
    from transformers import Gemma3ForConditionalGeneration

    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(build_config(vocabulary_size))
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    return model


def attention_masks(model, ids):
    """The masks that transformers itself builds for this layout: {"full_attention", "sliding_attention"}.

    `ids` [1, L]. The picture is at the same place in every chat and padding only on the right, where no
    answer can see it: one pair of masks [1, 1, L, L] serves every batch.
    """
    import torch

    return model.create_masks_for_generate(
        config=model.config,
        inputs_embeds=torch.zeros(*ids.shape, model.config.text_config.hidden_size, device=ids.device),
        attention_mask=None,
        past_key_values=None,
        position_ids=None,
        token_type_ids=(ids == model.config.image_token_id).long(),
    )


def answer_logits(model, ids, pixels, masks, first: int):
    """Logits [B, L - first, V] for the tokens from position `first` on, right after <end_of_image>.

    Gemma3Model finds the image tokens by searching; here their place is known, which compiles without a
    break.
    """
    import torch

    words = model.get_input_embeddings()(ids)
    picture = model.get_image_features(pixels).pooler_output.to(words.dtype)
    embedded = torch.cat((words[:, : first - 1 - IMAGE_TOKENS], picture, words[:, first - 1 :]), 1)
    output = model.model.language_model(inputs_embeds=embedded, attention_mask=masks, use_cache=False)
    return model.lm_head(output.last_hidden_state[:, first - 1 : -1])


def answer_loss(model, ids, answers, pixels, masks, first: int):
    """Mean cross-entropy over all tokens of all answers (each with its <end_of_turn>)."""
    import torch.nn.functional as F

    logits = answer_logits(model, ids, pixels, masks, first)
    targets = ids[:, first:].masked_fill(answers[:, first:] == 0, -100)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


def to_pixels(images, jitter=None):
    """uint8 pictures [B, H, W, 3] → [B, 3, H, W] in -1 … 1, as the image processor makes them.

    With `jitter` (a torch.Generator) each is moved by up to 3 pixels and made up to 10 % darker or
    lighter. Never mirrored: left and right have a meaning here.
    """
    import torch

    if jitter is not None:
        batch, size = images.shape[:2]
        shift = torch.randint(-3, 4, (2, batch, 1), device=images.device, generator=jitter)
        rows, columns = (torch.arange(size, device=images.device) + shift).clamp(0, size - 1)
        which = torch.arange(batch, device=images.device)[:, None, None]
        images = images[which, rows[:, :, None], columns[:, None, :]]
    pixels = images.permute(0, 3, 1, 2).float() / 255
    if jitter is not None:
        gain = torch.rand(len(images), 1, 1, 1, device=images.device, generator=jitter) * 0.2 + 0.9
        pixels = (pixels * gain).clamp(max=1)
    return (pixels * 2 - 1).contiguous()


def build_optimizer(model, fused: bool):
    """AdamW; only matrices decay, not norms, biases or embeddings."""
    import torch

    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim >= 2 and "embed" not in name else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=fused)


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up, then half a cosine. `progress` runs from 0 to 1 over the whole schedule."""
    if progress < WARM_UP:
        return peak * max(progress / WARM_UP, 0.01)
    fraction = min(1.0, (progress - WARM_UP) / (1 - WARM_UP))
    return peak * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * fraction)))


def evaluate(model, shards: list[Path], masks, first: int, batch_size: int) -> dict:
    """The share of held-out answers of which greedy decoding, given the right beginning, gets every token.

    Returns {"accuracy", "accuracy_first_turn" (without an earlier answer to lean on), "by_kind",
    "answers"}. On a GPU the model runs in bfloat16.
    """
    import numpy as np
    import torch

    right: dict[str, list[bool]] = {}
    first_turns: list[bool] = []
    for path in shards:
        with np.load(path) as shard:
            images, kinds = shard["images"], shard["kinds"][:, 0]
            ids, answers = shard["ids"][:, 0], shard["answers"][:, 0, first:]
        for at in range(0, len(ids), batch_size):
            rows = slice(at, at + batch_size)
            tokens = torch.from_numpy(ids[rows]).long().to(model.device)
            pixels = to_pixels(torch.from_numpy(images[rows]).to(model.device))
            with torch.no_grad(), half_precision(model.device):
                guesses = answer_logits(model, tokens, pixels, masks, first).argmax(-1)
            hits = (guesses == tokens[:, first:]).cpu().numpy()
            for marks, hit, names in zip(answers[rows], hits, kinds[rows], strict=True):
                correct = [bool(hit[marks == turn].all()) for turn in range(1, marks.max() + 1)]
                first_turns.append(correct[0])
                for name, value in zip(names[: len(correct)], correct, strict=True):
                    right.setdefault(str(name), []).append(value)
    return {
        "accuracy": round(float(np.mean([value for values in right.values() for value in values])), 4),
        "accuracy_first_turn": round(float(np.mean(first_turns)), 4),
        "by_kind": {name: round(float(np.mean(values)), 4) for name, values in sorted(right.items())},
        "answers": sum(map(len, right.values())),
    }


def half_precision(device):
    """bfloat16 arithmetic on a GPU; a CPU stays with float32."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def check_layout(folder: Path, length: int) -> None:
    """`encode_turns` must give the very ids of the processor and its chat template, or ValueError."""
    from gemma3_scenes import IMAGE_SIZE
    from PIL import Image
    from transformers import Gemma3Processor

    turns = [
        ("Is it a dog?", "Yes, it is."),
        ("How many?", "Two."),
        ("What color is it?", "The dog is brown."),
    ]
    messages = []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages[0]["content"] = [{"type": "image"}, {"type": "text", "text": turns[0][0]}]
    processor = Gemma3Processor.from_pretrained(folder)
    text = processor.apply_chat_template(messages, tokenize=False)
    picture = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    theirs = processor(text=text, images=picture, add_special_tokens=False)["input_ids"][0]
    ours, _, _ = pretrain_data.encode_turns(pretrain_data.load_tokenizer(str(folder)), turns, length)
    if ours[: len(theirs)].tolist() != list(theirs):
        raise ValueError(
            "encode_turns and Gemma's chat template disagree: the model would learn a foreign format"
        )


def check_forward(model, ids, pixels, masks, first: int) -> None:
    """`answer_logits` must give what transformers gives from token_type_ids, or AssertionError."""
    import torch

    fast = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        types = (ids == model.config.image_token_id).long()
        theirs = model(input_ids=ids, pixel_values=pixels, token_type_ids=types).logits
        ours = answer_logits(model, ids, pixels, masks, first)
    torch.set_float32_matmul_precision(fast)
    torch.testing.assert_close(ours, theirs[:, first - 1 : -1], rtol=1e-2, atol=1e-2)
