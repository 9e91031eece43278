"""How fast a dialog is ranked: naive, cached prefix and ours, in one run, as JSON.

On a GPU: a random-weight model of Gemma-3-4b's true shape (no download), dialogs of 10 rounds with 100
candidates of 2 to 7 random tokens (<end_of_turn> included), noise pictures of 480 × 640:
    python tests/benchmarks/ranking.py --load-in-4bit --memory-gb 14
On the CPU: the embedded model on its own dialogs. With --dialogs and --tokenizer (a folder with Gemma-3's)
real option lists are ranked as well. Several GPUs: torchrun --nproc-per-node 2 … (each ranks its share).
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import visdial_lab  # noqa: E402, F401, I001  before torch: it sets how torch's threads wait
import numpy as np  # noqa: E402
import reference_ranking  # noqa: E402
import tiny_model  # noqa: E402
import torch  # noqa: E402

from visdial_lab import ranking  # noqa: E402
from visdial_lab.visdial import Dialog, Round, VisDial  # noqa: E402

VAL = 2064  # dialogs in VisDial v1.0 val
VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27}
TEXT = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 1024,
}


def gemma3_4b(tokenizer, four_bit: bool):
    """Gemma-3-4b with random weights in bfloat16 (NF4 if asked), and a processor with 896-px pictures."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=TEXT | {"pad_token_id": 0},
        vision_config=VISION | {"image_size": 896, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=256,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Gemma3ForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    if four_bit:
        quantise(model.model)
    return model, processor_with(tokenizer)


def processor_with(tokenizer):
    from transformers import Gemma3ImageProcessor, Gemma3Processor

    pictures = Gemma3ImageProcessor(size={"height": 896, "width": 896})
    template = tokenizer.chat_template
    return Gemma3Processor(pictures, tokenizer, chat_template=template, image_seq_length=256)


def quantise(module) -> None:
    """Every linear layer in NF4 with doubly quantised scales, as bitsandbytes loads a checkpoint."""
    import bitsandbytes as bnb

    for name, child in module.named_children():
        if not isinstance(child, torch.nn.Linear):
            quantise(child)
            continue
        packed = bnb.nn.Linear4bit(
            child.in_features,
            child.out_features,
            bias=child.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = bnb.nn.Params4bit(
            child.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        packed.bias = child.bias
        setattr(module, name, packed.to("cuda"))


def tokenizer_with_words():
    """The tests' little tokenizer with 20,000 more words of one token each, to draw candidates from."""
    tokenizer = tiny_model.tokenizer()
    tokenizer.add_tokens([f"w{number:05d}" for number in range(20_000)])
    return tokenizer


def random_dialogs(count: int, folder: Path) -> list[Dialog]:
    """Dialogs with noise pictures, 10 rounds, 100 options of 2 to 7 tokens with the <end_of_turn>."""
    from PIL import Image

    rng = np.random.default_rng(0)
    dialogs = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(path, compress_level=0)
        rounds = []
        for place in range(10):
            words = [rng.integers(0, 20_000, rng.integers(1, 7)) for _ in range(100)]
            texts = tuple("".join(f"w{word:05d}" for word in option) for option in words)
            rounds.append(Round(place + 1, "is there a red dog in the picture", "yes it is", texts, 0, None))
        dialogs.append(Dialog(number, "two people near the lake", tuple(rounds), path, "val"))
    return dialogs


def measured(work, device: str) -> tuple[float, float]:
    """Seconds and peak GiB of a call."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")


def matrix_rate() -> float:
    """TFLOP/s of a large bfloat16 matrix product on random data: what this chip can do at best."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = measured(lambda: [a @ b for _ in range(20)], "cuda")
    return 20 * 2 * 8192**3 / seconds / 1e12


def operations(model, forests) -> float:
    """Floating-point operations that the scores of these dialogs need: matrix products and attention."""
    config = model.config
    text, vision = config.text_config, config.vision_config
    attention = text.num_attention_heads * text.head_dim
    kv = text.num_key_value_heads * text.head_dim
    layer = text.hidden_size * (2 * attention + 2 * kv + 3 * text.intermediate_size)
    patches = (vision.image_size // vision.patch_size) ** 2
    patch = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    total = 0.0
    for forest in forests:
        trunk = len(forest.trunk["input_ids"])
        seen = trunk**2 / 2 + (forest.roots[forest.tree] + forest.depth)[forest.inner].sum()
        total += 2 * layer * text.num_hidden_layers * forest.size
        total += 4 * attention * text.num_hidden_layers * seen
        total += 2 * text.hidden_size * text.vocab_size * (len(forest.inner) + len(forest.roots))
        total += vision.num_hidden_layers * (2 * patch * patches + 4 * vision.hidden_size * patches**2)
    return total


def ours(model, processor, dialogs, memory, device, rate) -> dict:
    """Seconds and peak memory a dialog, pictures and tokens included, after a warm-up.

    On a GPU with compiled kernels, as for any hundred dialogs or more; the warm-up, on all dialogs, compiles
    them for every shape that comes.
    """
    ranking._WORTH_COMPILING = 1
    warm_up, _ = measured(lambda: ranking.score_dialogs(model, processor, dialogs, memory_gb=memory), device)
    scores = []
    seconds, peak = measured(
        lambda: scores.extend(ranking.score_dialogs(model, processor, dialogs, memory_gb=memory)), device
    )
    limit = model.config.get_text_config().max_position_embeddings
    forests = [ranking.grow(processor, d, [""] * len(d.rounds), limit, {}) for d in dialogs]
    tokens = sum(forest.size for forest in forests)
    found = {
        "seconds_per_dialog": seconds / len(dialogs),
        "tokens_per_second": tokens / seconds,
        "tokens_per_dialog": tokens / len(dialogs),
        "minutes_for_val": VAL * seconds / len(dialogs) / 60,
        "warm_up_seconds": warm_up,
    }
    if device == "cuda":
        needed = operations(model, forests)
        found |= {
            "peak_gib": peak,
            "tflop_per_dialog": needed / len(dialogs) / 1e12,
            "fraction_of_matrix_rate": needed / seconds / 1e12 / rate,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--load-in-4bit", action="store_true")
    parser.add_argument("--memory-gb", type=float, help="GiB for everything, weights included")
    parser.add_argument("--count", type=int, help="dialogs (default: 64 on a GPU, 8 on the CPU)")
    parser.add_argument("--dialogs", type=Path, help="a VisDial file with real option lists")
    parser.add_argument("--images", type=Path, help="a folder of pictures to go with them, in turn")
    parser.add_argument("--tokenizer", type=Path, help="folder of Gemma-3's tokenizer")
    parser.add_argument("--skip-slow", action="store_true", help="without naive and cached prefix")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps(gpu(options) if device == "cuda" else cpu(options), indent=1))


def cpu(options) -> dict:
    """The embedded model on its own val dialogs, in float32."""
    from visdial_lab.models import load_model

    model, processor = load_model(ROOT / "data" / "gemma3-scenes")
    dialogs = list(VisDial.load(ROOT / "data" / "scenes", "val")[: options.count or 8])
    result = {"device": "cpu", "threads": torch.get_num_threads()}
    result["ours"] = ours(model, processor, dialogs, None, "cpu", None)
    if not options.skip_slow:
        for name, slow in (("naive", reference_ranking.naive), ("cached", reference_ranking.cached_prefix)):
            extra = {"at_once": 20} if name == "naive" else {}
            seconds, _ = measured(lambda s=slow, e=extra: s(model, processor, dialogs[0], **e), "cpu")
            result[name] = {
                "seconds_per_dialog": seconds,
                "times_slower": seconds / result["ours"]["seconds_per_dialog"],
            }
    return result


def gpu(options) -> dict:
    import tempfile

    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    torch.cuda.set_device(rank)
    rate = matrix_rate()
    model, processor = gemma3_4b(tokenizer_with_words(), options.load_in_4bit)
    weights = torch.cuda.memory_allocated()
    memory = None if options.memory_gb is None else options.memory_gb - weights / 2**30
    result = {
        "device": torch.cuda.get_device_name(),
        "processes": world,
        "weights": "nf4" if options.load_in_4bit else "bfloat16",
        "weights_gib": weights / 2**30,
        "matrix_rate_tflops": rate,
    }
    count = options.count or 64
    with tempfile.TemporaryDirectory() as folder:
        dialogs = random_dialogs(count, Path(folder))[rank::world]
        result["random"] = ours(model, processor, dialogs, memory, "cuda", rate)
        if not options.skip_slow:
            result |= slow_ways(model, processor, dialogs[0], result["random"]["seconds_per_dialog"])
        if options.dialogs and options.tokenizer:
            result["real"] = real(model, options, memory, rate)
    return result


def slow_ways(model, processor, dialog, fast: float) -> dict:
    """Naive (picture and history with every candidate, 20 at once) and cached prefix; rounds 1, 5 and 10."""
    rounds, image, result = (0, 4, 9), dialog.image(), {}
    for name in ("naive", "cached_prefix"):
        slow = functools.partial(
            getattr(reference_ranking, name),
            *(model, processor, dialog, image),
            **({"at_once": 20} if name == "naive" else {}),
        )
        slow(rounds=(0,))
        seconds, peak = measured(lambda slow=slow: slow(rounds=rounds), "cuda")
        seconds *= len(dialog.rounds) / len(rounds)
        result[name] = {"seconds_per_dialog": seconds, "times_slower": seconds / fast, "peak_gib": peak}
    ours = np.concatenate(ranking.score_dialogs(model, processor, [dialog])[0])
    theirs = np.concatenate([row for row in reference_ranking.naive(model, processor, dialog, at_once=20)])
    order = [np.argsort(np.argsort(scores)) for scores in (ours, theirs)]
    result["spearman_with_naive"] = float(np.corrcoef(*order)[0, 1])
    result["largest_difference"] = float(np.abs(ours - theirs).max())
    return result


def real(model, options, memory, rate) -> dict:
    """Real option lists and dialogs through Gemma-3's own tokenizer, with any pictures."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    model.config.image_token_id = tokenizer.convert_tokens_to_ids("<image_soft_token>")
    model.model.config.image_token_id = model.config.image_token_id
    processor = processor_with(tokenizer)
    paths = sorted(options.images.glob("*.jpg"))
    dialogs = [
        dataclasses.replace(dialog, image_path=paths[number % len(paths)])
        for number, dialog in enumerate(VisDial.load(options.dialogs, "val"))
    ]
    return ours(model, processor, dialogs[: options.count], memory, "cuda", rate)


if __name__ == "__main__":
    main()
