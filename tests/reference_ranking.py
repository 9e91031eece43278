"""Two slow ways to score candidates, written without the library's ranking: what ours must agree with.

Both return the scores of each round, float64 [options]: Σ log p(token) with the <end_of_turn>.
"""

import numpy as np
import torch

END = "<end_of_turn>"


def prompts(dialog, reminders=None) -> list[str]:
    """For each round the text before the answer: picture, caption, the rounds before it and its question.

    reminders: one for each round (or None), which stands before the answer.
    """
    texts, past = [], "<bos>"
    for turn in dialog.rounds:
        picture = f"<start_of_image>{dialog.caption}\n" if turn.round_id == 1 else ""
        past += f"<start_of_turn>user\n{picture}{turn.question}?{END}\n<start_of_turn>model\n"
        reminder = reminders[turn.round_id - 1] if reminders else None
        past += "" if reminder is None else f"<reminder>{reminder}</reminder>"
        texts.append(past)
        past += f"{'' if reminder is None else ' '}{turn.answer}{END}\n"
    return texts


def inputs(processor, texts, image, device="cpu"):
    """Texts (with one picture each, where the model sees) → a batch, padded on the right."""
    if not hasattr(processor, "image_processor"):
        texts = [text.replace("<start_of_image>", "") for text in texts]
        found = processor(
            texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="right"
        )
    else:
        found = processor(
            text=texts,
            images=[[image]] * len(texts),
            add_special_tokens=False,
            return_tensors="pt",
            padding=True,
            padding_side="right",
        )
        found.pop("mm_token_type_ids", None)
    return found.to(device)


def token_ids(processor, option) -> list[int]:
    tokenizer = getattr(processor, "tokenizer", processor)
    return tokenizer(option + END, add_special_tokens=False)["input_ids"]


def naive(model, processor, dialog, image=None, at_once=1, rounds=None, reminders=None):
    """The textbook way: a full forward of picture + history + candidate for each candidate.

    at_once: candidates in one forward pass; the picture goes with every one of them, as published code does.
    rounds: places of the rounds to score (None = all); the others give None.
    reminders: as for `prompts`; a candidate stands behind its round's and a space.
    """
    scores = []
    for place, (turn, prompt) in enumerate(zip(dialog.rounds, prompts(dialog, reminders), strict=True)):
        if turn.options is None or (rounds is not None and place not in rounds):
            scores.append(None)
            continue
        row, space = [], " " if prompt.endswith("</reminder>") else ""
        for start in range(0, len(turn.options), at_once):
            options = [space + option for option in turn.options[start : start + at_once]]
            texts = [prompt + option + END for option in options]
            batch = inputs(processor, texts, image or dialog.image(), model.device)
            with torch.inference_mode():
                logits = model(**batch).logits
            for line, ids, seen, option in zip(
                logits, batch["input_ids"], batch["attention_mask"].sum(1), options, strict=True
            ):
                length = len(token_ids(processor, option))
                logprobs = line[seen - length - 1 : seen - 1].double().log_softmax(-1)
                own = ids[seen - length : seen, None]
                row.append(logprobs.gather(1, own).sum().item())
        scores.append(np.array(row))
    return scores


def cached_prefix(model, processor, dialog, image=None, rounds=None):
    """The usual improvement: a round's prompt once, its keys and values repeated for all its candidates."""
    from transformers import DynamicCache

    scores = []
    for place, (turn, prompt) in enumerate(zip(dialog.rounds, prompts(dialog), strict=True)):
        if turn.options is None or (rounds is not None and place not in rounds):
            scores.append(None)
            continue
        candidates = [token_ids(processor, option) for option in turn.options]
        longest = max(map(len, candidates))
        padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in candidates], device=model.device)
        cache = DynamicCache()
        with torch.inference_mode():
            batch = inputs(processor, [prompt], image or dialog.image(), model.device)
            first = model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            cache.batch_repeat_interleave(len(candidates))
            rest = model(input_ids=padded, past_key_values=cache, use_cache=True).logits[:, :-1]
        logprobs = torch.cat([first.expand(len(candidates), -1, -1), rest], 1).double().log_softmax(-1)
        found = logprobs.gather(2, padded[..., None]).squeeze(2)
        row = [found[n, : len(ids)].sum().item() for n, ids in enumerate(candidates)]
        scores.append(np.array(row))
    return scores
