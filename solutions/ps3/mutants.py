"""Wrong answers to problem set 3 that students do give, and what the set is then worth (of 20)."""

from visdial_lab.exercises import Mutant

MUTANTS = [
    Mutant(
        "scale alpha instead of alpha / r",
        "ps3.forward",
        """
def lora_forward(x, weight, a, b, alpha):
    return x @ weight.T + alpha * (x @ a.T @ b.T)
""",
        18,
    ),
    Mutant(
        "A and B both random: the start is not the base",
        "ps3.start",
        """
def lora_start(out_features, in_features, r, generator):
    bound = 1 / math.sqrt(in_features)
    a = (2 * torch.rand(r, in_features, generator=generator) - 1) * bound
    b = (2 * torch.rand(out_features, r, generator=generator) - 1) * bound
    return a, b
""",
        18,
    ),
    Mutant(
        "A and B swapped: A zero, B random",
        "ps3.start",
        """
def lora_start(out_features, in_features, r, generator):
    b = (2 * torch.rand(out_features, r, generator=generator) - 1) / math.sqrt(in_features)
    return torch.zeros(r, in_features), b
""",
        18,
    ),
    Mutant(
        "unmerge with the wrong sign",
        "ps3.merge",
        """
def merge(weight, a, b, alpha):
    return weight + alpha / len(a) * (b @ a)


def unmerge(merged, a, b, alpha):
    return merged + alpha / len(a) * (b @ a)
""",
        18,
    ),
    Mutant(
        "merge in place",
        "ps3.merge",
        """
def merge(weight, a, b, alpha):
    weight += alpha / len(a) * (b @ a)
    return weight


def unmerge(merged, a, b, alpha):
    return merged - alpha / len(a) * (b @ a)
""",
        19,
    ),
    Mutant(
        "nothing is frozen",
        "ps3.adapters",
        """
def add_adapters(model, targets, r, alpha, generator):
    replaced = []
    for path, part in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in targets and isinstance(part, nn.Linear):
            setattr(model.get_submodule(parent), name, LoRALinear(part, r, alpha, generator))
            replaced.append(path)
    if not replaced:
        raise ValueError("nothing to replace")
    return sorted(replaced)
""",
        17,
    ),
    Mutant(
        "names that only contain a target",
        "ps3.adapters",
        """
def add_adapters(model, targets, r, alpha, generator):
    model.requires_grad_(False)
    replaced = []
    for path, part in list(model.named_modules()):
        if isinstance(part, nn.Linear) and any(target in path for target in targets):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, LoRALinear(part, r, alpha, generator))
            replaced.append(path)
    if not replaced:
        raise ValueError("nothing to replace")
    return sorted(replaced)
""",
        18,
    ),
    Mutant(
        "the table of NF4 copied",
        "ps3.levels",
        """
def normal_levels(bits=4, offset=0.9677083):
    negative = [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004]
    positive = [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
    return np.array([*negative, 0.0, *positive])
""",
        18,
    ),
    Mutant(
        "one absmax for the whole tensor",
        "ps3.quantise",
        """
def quantise(weights, levels, block):
    flat = weights.ravel()
    largest = np.abs(flat).max()
    codes = np.abs(flat[:, None] / (largest or 1) - levels).argmin(axis=1).astype(np.uint8)
    return codes, np.full(-(-len(flat) // block), largest)


def dequantise(codes, absmax, levels, block, shape):
    return (levels[codes] * absmax[np.arange(len(codes)) // block]).reshape(shape)
""",
        15,
    ),
    Mutant(
        "the next level below instead of the nearest",
        "ps3.quantise",
        """
def quantise(weights, levels, block):
    flat = weights.astype(float).ravel()
    absmax = np.array([np.abs(flat[i : i + block]).max() for i in range(0, len(flat), block)])
    scaled = flat / np.where(absmax == 0, 1, absmax)[np.arange(len(flat)) // block]
    codes = np.searchsorted(levels, scaled, side="right") - 1
    return codes.astype(np.uint8), absmax


def dequantise(codes, absmax, levels, block, shape):
    return (levels[codes] * absmax[np.arange(len(codes)) // block]).reshape(shape)
""",
        16,
    ),
    Mutant(
        "blocks of zeros divided by zero",
        "ps3.quantise",
        """
def quantise(weights, levels, block):
    flat = weights.astype(float).ravel()
    absmax = np.array([np.abs(flat[i : i + block]).max() for i in range(0, len(flat), block)])
    with np.errstate(invalid="ignore"):
        scaled = flat / absmax[np.arange(len(flat)) // block]
    return np.abs(scaled[:, None] - levels).argmin(axis=1).astype(np.uint8), absmax


def dequantise(codes, absmax, levels, block, shape):
    return (levels[codes] * absmax[np.arange(len(codes)) // block]).reshape(shape)
""",
        19,
    ),
    Mutant(
        "the bound is a whole gap",
        "ps3.bound",
        """
def error_bounds(absmax, levels, block, size):
    return np.repeat(absmax, block)[:size] * np.diff(levels).max()


def worst_share(weights, levels, block):
    codes, absmax = quantise(weights, levels, block)
    error = np.abs(dequantise(codes, absmax, levels, block, weights.shape) - weights).ravel()
    bounds = error_bounds(absmax, levels, block, weights.size)
    return float(np.max(error / np.where(bounds == 0, 1, bounds)))
""",
        18,
    ),
    Mutant(
        "double quantisation forgets its second constants",
        "ps3.size",
        """
def adapter_size(shapes, r):
    return sum(r * (rows + columns) for rows, columns in shapes.values())


def bits_per_weight(bits, block, double=None):
    return bits + (32 if double is None else 8) / block
""",
        18,
    ),
]
