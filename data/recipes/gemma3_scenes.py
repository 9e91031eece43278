"""The embedded base model's parts: a small Gemma-3 tokenizer, its processor, its configuration.

Everything keeps Gemma-3's own classes, special tokens and chat template; only the sizes suit a laptop.

    python data/recipes/gemma3_scenes.py --output data/gemma3-scenes    # everything but weights
"""

import argparse
import itertools
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# The first ten ids. <pad> … <mask> are 0 … 4 in Gemma too; its others stand further back among 262 thousand.
SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
NEWLINES = ("\n", "\n\n", "\n\n\n", "\n\n\n\n")
SPACE = "▁"
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")

IMAGE_SIZE = 128
PATCH_SIZE = 8
IMAGE_TOKENS = 64
VOCABULARY_SIZE = 2048

# Gemma-3's own chat template (google/gemma-3-4b-it), word for word.
CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""


def learn_merges(word_counts: Counter, budget: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Byte-pair encoding inside words, so that the words of the drawn world become single tokens.

    `word_counts`: how often each word occurs. `budget`: how many vocabulary entries may be spent, on
    merges and on the words made whole by them (each is needed a second time with a leading space).
    Returns the merges in the order they apply, and the whole words, most frequent first. The most
    frequent neighbours are joined first (Sennrich et al. 2016); ties go to the pair that sorts first, so
    the result depends on the corpus alone.
    """
    pieces = {word: tuple(word) for word in word_counts}
    merges: list[tuple[str, str]] = []

    def whole_words() -> list[str]:
        whole = [word for word, split in pieces.items() if len(split) == 1]
        return sorted(whole, key=lambda word: (-word_counts[word], word))

    while len(merges) + len(whole_words()) < budget:
        pairs: Counter = Counter()
        for word, split in pieces.items():
            for pair in itertools.pairwise(split):
                pairs[pair] += word_counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, split in pieces.items():
            if best[0] in split:
                pieces[word] = _join(split, best)
    return merges, whole_words()[: max(0, budget - len(merges))]


def _join(split: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of `pair` in one word's pieces, from left to right."""
    joined: list[str] = []
    for piece in split:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)


def build_tokenizer(texts: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE):
    """Train a small Gemma tokenizer on `texts`: Gemma's pipeline and special tokens, its own vocabulary.

    Spaces become ▁, unknown characters fall back to bytes, nothing is put before the text. A word is
    joined on its own first and with the space before it last, so "brown" (an answer's first word) and
    "▁brown" are both single tokens. Returns a `transformers.GemmaTokenizer` of at most `vocabulary_size`
    entries. As in Gemma, U+2581 (▁) itself decodes as a space; every other text comes back exactly.
    """
    from transformers import GemmaTokenizer

    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)] + [SPACE]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    entries = [*SPECIAL_TOKENS, *NEWLINES, *byte_tokens, *characters]

    counts = Counter(word for text in texts for word in WORD.findall(text))
    counts.update(("user", "model"))  # the roles of the chat template
    inner, words = learn_merges(counts, vocabulary_size - len(entries))

    newline_merges = [(left, "\n") for left in NEWLINES[:-1]]
    word_merges = [(SPACE, word) for word in words]
    merges = newline_merges + inner + word_merges
    # dict.fromkeys keeps the order and drops what two merges may both spell
    entries += [left + right for left, right in inner + word_merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(entries))}
    return GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
            "sot_token": "<start_of_turn>",
            "eot_token": "<end_of_turn>",
        },
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer):
    """Put Gemma-3's image processor (128 px, mean and deviation 0.5) and chat template around `tokenizer`.

    Returns a `transformers.Gemma3Processor`. It is saved under the name that every machine can load:
    AutoProcessor picks the torchvision back end where that is installed, Pillow's elsewhere.
    """
    from transformers import Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    image_processor = Gemma3ImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        image_seq_length=IMAGE_TOKENS,
    )
    return Gemma3Processor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_seq_length=IMAGE_TOKENS,
    )


def build_config(vocabulary_size: int):
    """The shapes of the base model: 9 M parameters for a vocabulary of about 2,000. Returns a `Gemma3Config`.

    Sliding (64 tokens) and full layers alternate: Gemma-3 has five to one, but with six layers that would
    leave one single look at the picture. The full layers' rotary base is 10,000: 2,048 positions need no
    longer waves.
    """
    from transformers import Gemma3Config

    ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    text = {
        "vocab_size": vocabulary_size,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "max_position_embeddings": 2048,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "vision_use_head": False,
    }
    return Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
        tie_word_embeddings=True,
    )


def build_generation_config():
    """How the model answers unless told otherwise: greedily, until <end_of_turn>."""
    from transformers import GenerationConfig

    ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    return GenerationConfig(
        bos_token_id=ids["<bos>"],
        pad_token_id=ids["<pad>"],
        eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
        do_sample=False,
    )


def save_model(model, folder: str | Path) -> Path:
    """Write weights (bfloat16), config and generation config into `folder`, each file whole or not at all.

    Returns the path of the weights file. The model itself is left as it is.
    """
    import torch
    from transformers import Gemma3ForConditionalGeneration

    copy = Gemma3ForConditionalGeneration(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.to(torch.bfloat16)
    copy.config.dtype = torch.bfloat16
    copy.generation_config = build_generation_config()
    save_into(folder, copy.save_pretrained)
    return Path(folder) / "model.safetensors"


def save_into(folder: str | Path, save) -> None:
    """Let `save(path)` fill a fresh folder beside `folder`, then move its files in (a rename is atomic)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save(str(fresh))
        for path in sorted(fresh.iterdir()):
            path.chmod(0o644)  # safetensors writes files that only their owner may read
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def corpus(scenes: int, seed: int) -> list[str]:
    """What the tokenizer learns from: all that pre-training and the dialogs say about sampled scenes."""
    import random

    import dialogs
    import language
    import world

    texts: list[str] = []
    for number in range(scenes):
        rng = random.Random(f"tokenizer-{seed}-{number}")
        scene = world.sample_scene(rng)
        for question, answer, *_ in language.pretraining_turns(scene, rng):
            texts += [question, answer]
        caption, turns = dialogs.converse(scene, rng)
        texts.append(caption)
        for turn in turns:
            texts += [turn.question, turn.answer, *turn.answers]
    return texts


def main() -> None:
    """Build the tokenizer from the generated language and save everything but the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("data/gemma3-scenes"))
    parser.add_argument("--scenes", type=int, default=4000, help="scenes that the corpus talks about")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY_SIZE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    tokenizer = build_tokenizer(corpus(options.scenes, options.seed), options.vocabulary)
    save_into(options.output, build_processor(tokenizer).save_pretrained)
    config = build_config(len(tokenizer))
    config.architectures = ["Gemma3ForConditionalGeneration"]
    save_into(options.output, config.save_pretrained)
    save_into(options.output, build_generation_config().save_pretrained)
    print(f"{options.output}: vocabulary of {len(tokenizer)}")


if __name__ == "__main__":
    main()
