"""Wrong answers to problem set 4 that students do give, and what the set is then worth (of 20).

Some cost more than their own exercise: the plain scores use token_logprobs, and the last two exercises use
the tree, its mask and its positions.
"""

from visdial_lab.exercises import Mutant

MUTANTS = [
    Mutant(
        "log-probabilities unshifted",
        "ps4.logprobs",
        """
def token_logprobs(logits, ids):
    return logits.log_softmax(dim=1)[torch.arange(len(ids)), torch.as_tensor(ids)][1:]
""",
        16,
    ),
    Mutant(
        "the logarithm of a softmax that has become zero",
        "ps4.logprobs",
        """
def token_logprobs(logits, ids):
    return logits.softmax(dim=1).log()[torch.arange(len(ids) - 1), torch.as_tensor(ids[1:])]
""",
        19,
    ),
    Mutant(
        "END forgotten",
        "ps4.naive",
        """
def naive_scores(model, prompt, candidates):
    scores = []
    for candidate in candidates:
        text = prompt + candidate
        logits, _ = model(text, range(len(text)), causal(len(text)))
        scores.append(token_logprobs(logits, text)[len(prompt) - 1 :].sum())
    return torch.stack(scores)
""",
        18,
    ),
    Mutant(
        "mean instead of sum",
        "ps4.naive",
        """
def naive_scores(model, prompt, candidates):
    scores = []
    for candidate in candidates:
        text = prompt + candidate + [END]
        logits, _ = model(text, range(len(text)), causal(len(text)))
        scores.append(token_logprobs(logits, text)[len(prompt) - 1 :].mean())
    return torch.stack(scores)
""",
        18,
    ),
    Mutant(
        "equal scores ranked by place",
        "ps4.ranks",
        """
def ranks(scores):
    places = torch.empty(len(scores), dtype=torch.int64)
    places[scores.argsort(descending=True, stable=True)] = torch.arange(1, len(scores) + 1)
    return places
""",
        18,
    ),
    Mutant(
        "the kept prompt is read again for each candidate",
        "ps4.cached",
        """
def cached_scores(model, prompt, candidates):
    length = len(prompt)
    scores = []
    for candidate in candidates:
        n = len(candidate)
        first, past = model(prompt, range(length), causal(length))
        sees = torch.cat([torch.ones(n, length, dtype=torch.bool), causal(n)], dim=1)
        logits, _ = model(candidate, range(length, length + n), sees, past)
        rows = torch.cat([first[-1:], logits]).log_softmax(dim=1)
        scores.append(rows[torch.arange(n + 1), torch.tensor([*candidate, END])].sum())
    return torch.stack(scores)
""",
        19,
    ),
    Mutant(
        "positions begin at 0 behind the kept prompt",
        "ps4.cached",
        """
def cached_scores(model, prompt, candidates):
    length = len(prompt)
    first, past = model(prompt, range(length), causal(length))
    scores = []
    for candidate in candidates:
        n = len(candidate)
        sees = torch.cat([torch.ones(n, length, dtype=torch.bool), causal(n)], dim=1)
        logits, _ = model(candidate, range(n), sees, past)
        rows = torch.cat([first[-1:], logits]).log_softmax(dim=1)
        scores.append(rows[torch.arange(n + 1), torch.tensor([*candidate, END])].sum())
    return torch.stack(scores)
""",
        17,
    ),
    Mutant(
        "nodes told apart by token and depth, whatever came before",
        "ps4.plant",
        """
def plant(candidates):
    tokens, parents, paths, nodes = [], [], [], {}
    for candidate in candidates:
        path = []
        for depth, token in enumerate(candidate):
            if (depth, token) not in nodes:
                nodes[depth, token] = len(tokens)
                tokens.append(token)
                parents.append(path[-1] if path else -1)
            path.append(nodes[depth, token])
        paths.append(path)
    return tokens, parents, paths
""",
        12,
    ),
    Mutant(
        "candidates see each other",
        "ps4.mask",
        """
def tree_mask(parents, prompt_length):
    size = len(parents)
    return torch.cat([torch.ones(size, prompt_length, dtype=torch.bool), causal(size)], dim=1)


def tree_positions(parents, prompt_length):
    positions = []
    for parent in parents:
        positions.append(positions[parent] + 1 if parent >= 0 else prompt_length)
    return torch.tensor(positions)
""",
        13,
    ),
    Mutant(
        "positions counted through all branches",
        "ps4.mask",
        """
def tree_mask(parents, prompt_length):
    sees = torch.zeros(len(parents), prompt_length + len(parents), dtype=torch.bool)
    sees[:, :prompt_length] = True
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] = sees[parent]
        sees[node, prompt_length + node] = True
    return sees


def tree_positions(parents, prompt_length):
    return prompt_length + torch.arange(len(parents))
""",
        13,
    ),
    Mutant(
        "the plain way under another name",
        "ps4.tree",
        """
def tree_scores(model, prompt, candidates):
    return naive_scores(model, prompt, candidates)
""",
        19,
    ),
    Mutant(
        "the kept prompt under another name",
        "ps4.tree",
        """
def tree_scores(model, prompt, candidates):
    return cached_scores(model, prompt, candidates)
""",
        19,
    ),
    Mutant(
        "each node predicted by its own row",
        "ps4.tree",
        """
def tree_scores(model, prompt, candidates):
    tokens, parents, paths = plant(candidates)
    length, size = len(prompt), len(tokens)
    above = torch.cat([causal(length), torch.zeros(length, size, dtype=torch.bool)], dim=1)
    sees = torch.cat([above, tree_mask(parents, length)])
    positions = torch.cat([torch.arange(length), tree_positions(parents, length)])
    table = model(prompt + tokens, positions, sees)[0][length:].log_softmax(dim=1)
    nodes = table[torch.arange(size), torch.tensor(tokens)]
    return torch.stack([nodes[path].sum() + table[path[-1], END] for path in paths])
""",
        17,
    ),
    Mutant(
        "a window of columns instead of positions",
        "ps4.window",
        """
def window_scores(model, prompt, candidates, window, sliding):
    tokens, parents, paths = plant(candidates)
    length, size = len(prompt), len(tokens)
    above = torch.cat([causal(length), torch.zeros(length, size, dtype=torch.bool)], dim=1)
    sees = torch.cat([above, tree_mask(parents, length)])
    positions = torch.cat([torch.arange(length), tree_positions(parents, length)])
    columns = torch.arange(length + size)
    near = sees & (columns[:, None] - columns[None, :] < window)
    logits, _ = model(prompt + tokens, positions, [near if slides else sees for slides in sliding])
    table = logits[length - 1 :].log_softmax(dim=1)
    nodes = table[torch.tensor(parents) + 1, torch.tensor(tokens)]
    return torch.stack([nodes[path].sum() + table[path[-1] + 1, END] for path in paths])
""",
        18,
    ),
]
