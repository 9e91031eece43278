"""Planted wrong answers for problem set 2, each with the points that the whole set then earns."""

from visdial_lab.exercises import Mutant

MUTANTS = [
    Mutant(
        "the target answer in the prompt",
        "ps2.messages",
        """
def to_messages(caption, rounds, upto=None):
    messages = []
    for number, (question, answer) in enumerate(rounds[:upto], 1):
        asked = question.rstrip(" ?") + "?"
        asked = f"{caption}\\n{asked}" if number == 1 else asked
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
    return messages
""",
        19,
    ),
    Mutant(
        "the assistant keeps its name, anyone may speak",
        "ps2.render",
        """
def render(messages, add_generation_prompt=False):
    text = "<bos>"
    for message in messages:
        text += f"<start_of_turn>{message['role']}\\n{message['content'].strip()}<end_of_turn>\\n"
    return text + "<start_of_turn>model\\n" * add_generation_prompt
""",
        17,
    ),
    Mutant(
        "the end of the turn is not learnt",
        "ps2.mask",
        """
def answer_mask(ids, header, end):
    mask = [False] * len(ids)
    for place in range(len(ids)):
        start = place + len(header)
        if ids[place:start] == header and end in ids[start:]:
            stop = ids.index(end, start)
            mask[start:stop] = [True] * (stop - start)
    return mask
""",
        17,
    ),
    Mutant(
        "an open answer is learnt",
        "ps2.mask",
        """
def answer_mask(ids, header, end):
    mask, inside = [], False
    for place, token in enumerate(ids):
        inside = inside or (place >= len(header) and ids[place - len(header) : place] == header)
        mask.append(inside)
        inside = inside and token != end
    return mask
""",
        19,
    ),
    Mutant(
        "every `model` begins an answer",
        "ps2.mask",
        """
def answer_mask(ids, header, end):
    mask, marker = [False] * len(ids), header[-2:]
    for place in range(len(ids)):
        start = place + len(marker)
        if ids[place:start] == marker and end in ids[start:]:
            stop = ids.index(end, start) + 1
            mask[start:stop] = [True] * (stop - start)
    return mask
""",
        19,
    ),
    Mutant(
        "all answers learnt in every sample",
        "ps2.split",
        """
def one_each(ids, mask):
    ends = [n for n in range(1, len(ids) + 1) if mask[n - 1] and (n == len(ids) or not mask[n])]
    return [(ids[:n], mask[:n]) for n in ends]
""",
        18,
    ),
    Mutant(
        "padding found by its token",
        "ps2.collate",
        """
def collate(examples, pad_id):
    ids = [torch.tensor(example["ids"]) for example in examples]
    mask = [torch.tensor(example["mask"]) for example in examples]
    ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad_id)
    mask = torch.nn.utils.rnn.pad_sequence(mask, batch_first=True, padding_value=False)
    labels = ids.masked_fill(~mask | (ids == pad_id), -100)
    return {"input_ids": ids, "attention_mask": (ids != pad_id).long(), "labels": labels}
""",
        19,
    ),
    Mutant(
        "labels shifted in the collator already",
        "ps2.collate",
        """
def collate(examples, pad_id):
    longest = max(len(example["ids"]) for example in examples)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for example in examples:
        ids, missing = example["ids"], longest - len(example["ids"])
        labels = [token if learnt else -100 for token, learnt in zip(ids, example["mask"])]
        batch["input_ids"].append(ids + [pad_id] * missing)
        batch["attention_mask"].append([1] * len(ids) + [0] * missing)
        batch["labels"].append(labels[1:] + [-100] * (missing + 1))
    return {name: torch.tensor(rows) for name, rows in batch.items()}
""",
        17,
    ),
    Mutant(
        "unshifted logits",
        "ps2.loss",
        """
def training_loss(batches):
    total, count = 0.0, 0
    for logits, labels in batches:
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
        ).item()
        count += int((labels != -100).sum())
    return total / count
""",
        17,
    ),
    Mutant(
        "the mean of the batches' means",
        "ps2.loss",
        """
def training_loss(batches):
    means = [
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).item()
        for logits, labels in batches
    ]
    return sum(means) / len(means)
""",
        19,
    ),
    Mutant(
        "next fit, and long examples are cut",
        "ps2.pack",
        """
def pack(examples, length, pad_id):
    rows = []
    for example in examples:
        ids, mask = example["ids"][:length], example["mask"][:length]
        if not rows or len(rows[-1]["input_ids"]) + len(ids) > length:
            rows.append({"input_ids": [], "labels": [], "position_ids": [], "segment_ids": []})
        row = rows[-1]
        row["input_ids"] += ids
        row["labels"] += [token if learnt else -100 for token, learnt in zip(ids, mask)]
        row["position_ids"] += range(len(ids))
        row["segment_ids"] += [max(row["segment_ids"], default=0) + 1] * len(ids)
    fill = {"input_ids": pad_id, "labels": -100, "position_ids": 0, "segment_ids": 0}
    return {
        name: torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])
        for name, value in fill.items()
    }
""",
        18,
    ),
    Mutant(
        "causal, but neighbours see each other",
        "ps2.block",
        """
def block_mask(segment_ids):
    length, real = segment_ids.shape[1], segment_ids != 0
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return causal & real[:, :, None] & real[:, None, :]
""",
        18,
    ),
]
