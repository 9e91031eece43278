"""A random-weight Gemma-3 with its own little tokenizer, made in seconds, so that tests need no download.

`build(folder)` writes a real `Gemma3ForConditionalGeneration` and a real `Gemma3Processor`; `build_text`
writes the text-only `Gemma3ForCausalLM`. The sizes are arguments: benchmarks ask for the true width of
data/gemma3-scenes.
"""

from pathlib import Path

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
TURNS = [
    "<start_of_turn>",
    "<end_of_turn>",
    "\n",
    "\n\n",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
]
TEXT = (
    "user model is there a red dog in the picture yes no it is blue two people can't tell what color the "
    "cat near the house a man with a green ball is standing by the lake does he look happy is it sunny "
    "yes it is no it isn't "
) * 3
CHAT_TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {{ '<start_of_image>' if item['type'] == 'image' else item['text'] | trim }}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""


def tokenizer():
    """Byte-fallback BPE in Gemma's manner: its special tokens and ids in front, no prefix space, its chat
    template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def skeleton(model):
        made = Tokenizer(model)
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        return made

    learnt = skeleton(models.BPE(unk_token="<unk>"))
    letters = list("abcdefghijklmnopqrstuvwxyz'?.,▁<>_0123456789")
    trainer = trainers.BpeTrainer(vocab_size=150, initial_alphabet=letters, show_progress=False)
    learnt.train_from_iterator([TEXT], trainer)
    import json

    merges = [tuple(pair) for pair in json.loads(learnt.to_str())["model"]["merges"]]
    words = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + TURNS
    words += [
        word for word, _ in sorted(learnt.get_vocab().items(), key=lambda item: item[1]) if word not in words
    ]
    vocab = {word: number for number, word in enumerate(words)}
    made = skeleton(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    special = [
        AddedToken(word, special=True, normalized=False) for word in SPECIAL + TURNS if "\n" not in word
    ]
    made.add_special_tokens(special)
    made.add_tokens([AddedToken("\n", normalized=False), AddedToken("\n\n", normalized=False)])
    names = {"boi_token": TURNS[4], "eoi_token": TURNS[5], "image_token": TURNS[6]}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="<end_of_turn>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens=names,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def text_config(
    vocab, width=32, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=64, window=16, max_length=1024
):
    """Gemma-3's text settings; every third layer is full attention so that both kinds occur."""
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "sliding_window": window,
        "layer_types": ["full_attention" if (i + 1) % 3 == 0 else "sliding_attention" for i in range(layers)],
        "max_position_embeddings": max_length,
        "bos_token_id": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def _randomise(model, seed, scale):
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        spread = 0.1 if "norm" in name else scale
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * spread)


def build(
    folder,
    seed=0,
    vision_width=32,
    vision_layers=2,
    image_size=32,
    patch=8,
    image_tokens=4,
    scale=0.15,
    **text,
):
    """Write the tiny vision-language model to `folder` and return the folder. `text`: arguments of
    `text_config`."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    fast = tokenizer()
    ids = fast.convert_tokens_to_ids
    end = ids("<end_of_turn>")
    config = Gemma3Config(
        text_config=text_config(text.pop("vocab", len(fast)), **text),
        vision_config={
            "hidden_size": vision_width,
            "intermediate_size": vision_width * 4,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": 4,
            "image_size": image_size,
            "patch_size": patch,
            "vision_use_head": False,
        },
        mm_tokens_per_image=image_tokens,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    model = Gemma3ForConditionalGeneration(config)
    _randomise(model, seed, scale)
    model.generation_config.update(eos_token_id=[1, end], pad_token_id=0, bos_token_id=2)
    pictures = Gemma3ImageProcessorPil(size={"height": image_size, "width": image_size})
    processor = Gemma3Processor(pictures, fast, chat_template=CHAT_TEMPLATE, image_seq_length=image_tokens)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def build_text(folder, seed=0, scale=0.15, **text):
    """Write the tiny text-only model to `folder` and return the folder."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    fast = tokenizer()
    model = Gemma3ForCausalLM(Gemma3TextConfig(**text_config(len(fast), **text)))
    _randomise(model, seed, scale)
    model.generation_config.update(
        eos_token_id=[1, fast.convert_tokens_to_ids("<end_of_turn>")], pad_token_id=0
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return Path(folder)


def true_size(folder, seed=0):
    """The shape of data/gemma3-scenes with random weights, for measuring speed."""
    shape = dict(vocab=2000, width=256, layers=6, heads=4, kv_heads=2, head_dim=64, mlp=1024, window=64)
    return build(
        folder, seed, vision_width=192, vision_layers=6, image_size=128, image_tokens=64, scale=0.02, **shape
    )
