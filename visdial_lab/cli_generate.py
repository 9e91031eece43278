"""`visdial-lab generate …`: training records and the evaluation set. The other commands are in cli.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from visdial_lab.errors import UserError

if TYPE_CHECKING:
    from visdial_lab.config import Config
    from visdial_lab.visdial import VisDial

generate = typer.Typer(help="Make training records or the evaluation set.", no_args_is_help=True)

ConfigOption = Annotated[str, Option(help="A profile's name, or the path of a YAML file.")]
OutputOption = Annotated[Path, Option(help="The .jsonl file to write.")]
SplitOption = Annotated[str | None, Option(help="Split to read; default: the config's.")]
RoundsOption = Annotated[
    str | None,
    Option(help="all, the first so many, or one learnt answer a record: last, random."),
]


def load_config_with(name: str, options: dict[str, Any]) -> "Config":
    """The profile, with those options laid over it that were given."""
    from visdial_lab.config import load_config

    return load_config(name, {key: value for key, value in options.items() if value is not None})


def load_dialogs(config: "Config", split: str | None = None) -> "VisDial":
    """The dialogs to train on, or so many of another split."""
    from visdial_lab.visdial import VisDial

    return VisDial.load(config.data.root, split or config.data.train_split)[: config.data.num_train_dialogs]


@generate.command()
def base(
    output_path: OutputOption,
    config: ConfigOption = "scenes",
    split: SplitOption = None,
    sample_count: Annotated[int | None, Option(help="So many records; default: the config's.")] = None,
    rounds: RoundsOption = None,
    seed: Annotated[int | None, Option(help="Of the sample; default: the config's.")] = None,
    stratify: Annotated[
        str | None, Option(help="question-type: as many questions of each type (with --rounds random).")
    ] = None,
) -> None:
    """Turn human dialogs into training records (TRL's conversational format), one a line."""
    from visdial_lab.generation import write_records

    options = {
        "generation.sample_count": sample_count,
        "generation.rounds": int(rounds) if rounds is not None and rounds.isdecimal() else rounds,
        "generation.seed": seed,
    }
    given = load_config_with(config, options)
    how = given.generation.model_dump() | {"stratify": stratify}
    written = write_records(output_path, load_dialogs(given, split), **how)
    print(f"{written} records in {output_path}")


@generate.command("eval")
def evaluation(
    output_path: Annotated[Path | None, Option(help="The .json file to write.")] = None,
    config: ConfigOption = "scenes",
    split: Annotated[str | None, Option(help="Split to read; default: the config's for evaluation.")] = None,
    dialogs: Annotated[Path | None, Option(help="A dialogs file instead.")] = None,
    dense_file: Annotated[Path | None, Option(help="Its dense annotations.")] = None,
    check: Annotated[Path | None, Option(help="An evaluation set: is it as it was written?")] = None,
) -> None:
    """Write the fixed evaluation set with its content hash: equal hashes, equal evaluation."""
    from visdial_lab.generation import read_evaluation_set, write_evaluation_set
    from visdial_lab.visdial import VisDial

    if (output_path is None) == (check is None):
        raise UserError("give --output-path to write an evaluation set, or --check to verify one")
    if check is not None:
        found, path = read_evaluation_set(check), check
    else:
        data = load_config_with(config, {}).data
        source = VisDial.load(
            dialogs or data.root, split or (None if dialogs else data.val_split), dense_file
        )
        chosen = source if dialogs else source[: data.num_val_dialogs]
        found, path = write_evaluation_set(output_path, chosen), output_path
    graded = sum(item["relevance"] is not None for item in found["items"])
    print(f"{len(found['items'])} questions, {graded} with relevance, in {path}")
    print(f"content sha256 {found['content_sha256']}")
