"""Tests of problem set 2. Never shipped to students: they see the visible cases' inputs and outputs only."""

import torch

from visdial_lab.exercises import Test, call

CAPTION = "a man and his dogs on a beach"
ROUNDS = [("is it sunny", "yes"), ("how many dogs", "2 brown dogs"), ("is he alone", "no")]
WORDS = ["is", "it", "a", "new", "model", "red", "dog", "user", "on", "the", "beach", "how", "many"]


def _text(rng, low=1, high=6):
    return " ".join(rng.choice(WORDS, int(rng.integers(low, high))).tolist())


def _rounds(rng, n):
    return [(_text(rng), _text(rng)) for _ in range(n)]


def _messages_three(rng):
    yield call("to_messages", CAPTION, ROUNDS)


def _messages_upto(rng):
    for n in (1, 2, 5, 10):
        rounds = _rounds(rng, n)
        for upto in {1, n, int(rng.integers(1, n + 1))}:
            yield call("to_messages", CAPTION, rounds, upto=upto)
    marks = [(f"is it {end}", "yes") for end in ("red", "red?", "red ?", "a ? or b", "red ??")]
    yield call("to_messages", CAPTION, marks)
    yield call("to_messages", CAPTION, marks, upto=3)


def _chat(rng, turns):
    return [{"role": ("user", "assistant")[n % 2], "content": _text(rng)} for n in range(turns)]


def _render_two(rng):
    yield call("render", [{"role": "user", "content": f"{CAPTION}\nis it sunny?"}])
    yield call(
        "render",
        [{"role": "user", "content": "is it sunny?"}, {"role": "assistant", "content": "yes"}],
    )


def _render_prompt(rng):
    for turns in (1, 3, 7):
        yield call("render", _chat(rng, turns), add_generation_prompt=True)
        padded = [turn | {"content": f" \n{turn['content']}  "} for turn in _chat(rng, turns + 1)]
        yield call("render", padded)
    yield call(
        "render", [{"role": "user", "content": f"{CAPTION}\n is it old? "}], add_generation_prompt=True
    )


def _render_order(rng):
    chat = _chat(rng, 6)
    yield call("render", chat[1:])
    yield call("render", [chat[0], chat[2]])
    yield call("render", [*chat[:4], chat[3]])


PAD, BOS, START, END, NEWLINE, USER, MODEL = range(7)
HEADER = [START, MODEL, NEWLINE]


def _words(rng, low=1, high=6):
    return rng.integers(7, 60, int(rng.integers(low, high))).tolist()


def _ids(rng, answers, question=lambda rng: _words(rng)):
    """The tokens of a conversation as the toy tokenizer would number them."""
    ids = [BOS]
    for _ in range(answers):
        ids += [START, USER, NEWLINE, *question(rng), END, NEWLINE]
        ids += [*HEADER, *_words(rng), END, NEWLINE]
    return ids


def _mask(ids):
    """True on answers and their end: what `one_each` and the collator are given."""
    mask, learnt = [], False
    for place, token in enumerate(ids):
        learnt = learnt or ids[max(0, place - 3) : place] == HEADER
        mask.append(learnt)
        learnt = learnt and token != END
    return mask


def _mask_two(rng):
    ids = [BOS, START, USER, NEWLINE, 20, 21, END, NEWLINE, *HEADER, 30, END, NEWLINE]
    ids += [START, USER, NEWLINE, 22, END, NEWLINE, *HEADER, 31, 32, END, NEWLINE]
    yield call("answer_mask", ids, HEADER, END)


def _mask_many(rng):
    for answers in (1, 3, 10):
        yield call("answer_mask", _ids(rng, answers), HEADER, END)
    for header in ([2], [2, 6], [2, 6, 40, 4]):  # other tokenizers
        ids = [1]
        for _ in range(3):
            ids += [50, *_words(rng, 1, 4), 3, *header, *_words(rng, 1, 4), 3]
        yield call("answer_mask", ids, header, 3)

    for _ in range(3):  # part of the header inside a question
        asked = lambda rng: [*_words(rng), MODEL, NEWLINE, *_words(rng)]  # noqa: E731
        yield call("answer_mask", _ids(rng, 2, asked), HEADER, END)
    yield call("answer_mask", _ids(rng, 2, lambda rng: [9, NEWLINE, MODEL]), HEADER, END)


def _mask_open(rng):
    for answers in (0, 1, 4):
        ids = [*_ids(rng, answers), START, USER, NEWLINE, *_words(rng), END, NEWLINE, *HEADER]
        yield call("answer_mask", ids, HEADER, END)
        yield call("answer_mask", [*ids, *_words(rng)], HEADER, END)
    yield call("answer_mask", [BOS, START, USER, NEWLINE, *_words(rng)], HEADER, END)


def _split_two(rng):
    yield call("one_each", [1, 8, 9, 5, 7, 6], [False, False, True, True, False, True])


def _split_many(rng):
    for answers in (1, 3, 10):
        ids = _ids(rng, answers)
        yield call("one_each", ids, _mask(ids))  # a line break follows the last answer
        yield call("one_each", ids[:-1], _mask(ids)[:-1])
    yield call("one_each", ids[:5], [False] * 5)


def _examples(rng, count):
    sequences = [_ids(rng, int(rng.integers(1, 4))) for _ in range(count)]
    return [{"ids": ids, "mask": _mask(ids)} for ids in sequences]


def _collate_two(rng):
    first = {"ids": [1, 8, 9, 5], "mask": [False, False, True, True]}
    second = {"ids": [1, 8, 9, 5, 7, 6], "mask": [False, False, True, True, False, True]}
    yield call("collate", [first, second], 0)


def _collate_many(rng):
    for count in (1, 3, 8):
        yield call("collate", _examples(rng, count), PAD)


def _collate_end(rng):
    for count in (2, 5):
        yield call("collate", _examples(rng, count), END)  # the end token pads, too
    yield call("collate", _examples(rng, 3), NEWLINE)


def _batch(rng, batch, length, vocabulary, share=0.5):
    logits = 2 * rng.normal(size=(batch, length, vocabulary))
    labels = rng.integers(0, vocabulary, (batch, length))
    labels[rng.random((batch, length)) >= share] = -100
    labels[0, -1] = rng.integers(vocabulary)  # at least one
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def _loss_tiny(rng):
    logits = torch.tensor([[[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]])
    yield call("training_loss", [(logits, torch.tensor([[-100, 0, 1]]))])


def _loss_one(rng):
    for batch, length in ((1, 6), (3, 9), (5, 4)):
        yield call("training_loss", [_batch(rng, batch, length, 11)])
    logits, labels = _batch(rng, 2, 5, 7)
    labels[:, 0] = 3  # nothing predicts the first token
    yield call("training_loss", [(logits, labels)])


def _loss_many(rng):
    for _ in range(3):
        yield call("training_loss", [_batch(rng, 2, 12, 11, 0.9), _batch(rng, 3, 4, 11, 0.2)])
    logits, labels = _batch(rng, 2, 5, 11)
    yield call("training_loss", [_batch(rng, 2, 6, 11), (logits, torch.full_like(labels, -100))])


def _pack_three(rng):
    first = {"ids": [1, 8, 9, 5], "mask": [False, False, True, True]}
    second = {"ids": [1, 7, 6], "mask": [False, False, True]}
    long = {"ids": [1, 8, 9, 5, 7, 6], "mask": [False, False, True, True, False, True]}
    yield call("pack", [first, long, second], 8, 0)


def _sized(rng, size):
    return {"ids": rng.integers(1, 60, size).tolist(), "mask": (rng.random(size) < 0.5).tolist()}


def _pack_many(rng):
    for length in (12, 20, 31):
        sizes = rng.integers(2, length + 1, 9).tolist()
        yield call("pack", [_sized(rng, size) for size in sizes], length, 0)
    fixed = [_sized(rng, size) for size in (7, 6, 4, 3, 10, 1, 2)]  # the gaps are filled later
    yield call("pack", fixed, 10, 0)
    for size in (11, 25):
        yield call("pack", [_sized(rng, 3), _sized(rng, size)], 10, 0)


def _block_one(rng):
    yield call("block_mask", torch.tensor([[1, 1, 1, 2, 2, 0]]))


def _block_many(rng):
    for rows, length in ((1, 5), (3, 12), (4, 9)):
        segments = torch.tensor(rng.integers(0, 2, (rows, length))).cumsum(1) + 1
        segments[0, length - 3 :] = 0
        yield call("block_mask", segments)


TESTS = [
    Test("ps2.messages", "three rounds", "write a dialog as a chat", 1, _messages_three, visible=True),
    Test("ps2.messages", "up to a round", "keep the target answer out of the prompt", 1, _messages_upto),
    Test("ps2.render", "one and two turns", "know Gemma's chat format", 1, _render_two, visible=True),
    Test("ps2.render", "prompts and white space", "prompt for an answer", 1, _render_prompt),
    Test("ps2.render", "roles that don't alternate", "refuse what the format can't say", 1, _render_order),
    Test("ps2.mask", "two rounds", "know which tokens carry loss", 1, _mask_two, visible=True),
    Test("ps2.mask", "many rounds, look-alikes", "match the header as a whole", 1, _mask_many),
    Test("ps2.mask", "an open answer", "learn nothing that is not finished", 1, _mask_open),
    Test("ps2.split", "two answers", "see what a causal model sees", 1, _split_two, visible=True),
    Test("ps2.split", "up to ten answers", "teach the last answer only", 1, _split_many),
    Test("ps2.collate", "two examples", "build a batch", 1, _collate_two, visible=True),
    Test("ps2.collate", "other sizes", "keep labels, tokens and attention in step", 1, _collate_many),
    Test("ps2.collate", "padded with a real token", "tell padding by place", 1, _collate_end),
    Test("ps2.loss", "three tokens", "logits predict the next token", 1, _loss_tiny, visible=True, rtol=1e-4),
    Test("ps2.loss", "one batch", "shift and mask", 1, _loss_one, rtol=1e-4),
    Test("ps2.loss", "several batches", "average over tokens, once", 1, _loss_many, rtol=1e-4),
    Test("ps2.pack", "two rows", "pack examples, first fit", 1, _pack_three, visible=True),
    Test("ps2.pack", "many examples, and too long ones", "never cut silently", 1, _pack_many),
    Test("ps2.block", "two segments and padding", "read a mask", 1, _block_one, visible=True),
    Test("ps2.block", "several rows", "keep neighbours apart", 1, _block_many),
]
