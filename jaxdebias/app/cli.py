"""The command line: typed options in, one call of the storeys below, a page and a table out. No logic of its own."""

import contextlib
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from jaxdebias.contracts import ContractError, check_choice, expect

# Optional values, shown in --help without the word None.
MaybeStr = Annotated[str | None, arg(metavar="STR")]
MaybeInt = Annotated[int | None, arg(metavar="INT")]
MaybeFloat = Annotated[float | None, arg(metavar="FLOAT")]
MaybeNames = Annotated[tuple[str, ...] | None, arg(metavar="STR [STR ...]")]
MaybePath = Annotated[Path | None, arg(metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Real handwritten digits whose colour goes with the class: train, measure, repair, compare, report.

    Needs no download. Writes the trained run to OUT/trained, the repaired one with all comparisons to OUT.
    """

    out: Path = Path("jaxdebias-quickstart")
    """Folder for results.json, report.html and the trained model; made if missing."""
    conflicting: float = 0.02
    """Share of training digits whose colour does not go with their class, above 0 and below 0.9."""
    seed: int = 0
    """Seed of the data, the model and the training."""
    overwrite: bool = False
    """Replace results that are already in OUT."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a classifier on a data set with a known bias attribute, and measure how much it follows the bias.

    Writes results.json, report.html, log.jsonl and the model to OUT. Stopped before its end, the same command
    carries on where it stopped.
    """

    data: str
    """Name of the data set; `jaxdebias data list` shows them all."""
    out: Path
    """Folder of the run; made if missing."""
    data_dir: MaybePath = None
    """Folder with the data set's files; without it the environment variable JAXDEBIAS_DATA."""
    conflicting: MaybeFloat = None
    """Share of bias-conflicting training samples, for data sets that are made with one."""
    attribute: MaybeStr = None
    """Bias attribute, for data sets that have several (adult: sex, race; utkface: age, race; celeba and
    celeba-mask: any of their 40)."""
    target: MaybeStr = None
    """CelebA: the attribute to classify (Blond_Hair)."""
    max_train: MaybeInt = None
    """CelebA: at most so many training images, drawn at random, where memory is short."""
    proxies: MaybeNames = None
    """Adult: columns that the counterfactual changes together with the attribute, for instance relationship."""
    without: MaybeNames = None
    """Adult: columns that the model does not get to see, for instance sex."""
    image_size: MaybeInt = None
    """Height and width to which the images of folder, utkface, celeba, waterbirds or composites are resized."""
    held_out: MaybeInt = None
    """Colored MNIST, Corrupted CIFAR-10: training pictures kept back for the repair (7000); 0 trains on all, as in the
    published protocol, and leaves nothing to repair with."""
    limit: MaybeInt = None
    """Corrupted CIFAR-10: only so many training pictures, those for the repair included."""
    cache_dir: MaybePath = None
    """Corrupted CIFAR-10: keep the corrupted pictures there; making them takes about a minute."""
    method: Literal["erm", "gce", "group-balanced", "group-dro", "lff", "sih", "aug-cell", "dbvae"] = "erm"
    """erm: plain empirical risk minimisation; gce: a loss that gives up on hard samples, which learns the shortcut even
    more; group-balanced, group-dro: with the bias labels of all training samples; lff, sih: without any; aug-cell:
    without any, against a shortcut that is neither shape nor place; several trainings on turned pictures, of which it
    returns plain training unless another is clearly better; dbvae: draws more often what is rare in its latent space,
    and reports what that is. All for the epochs of the data set's recipe: the papers' protocols are in `reproduce`."""
    model: MaybeStr = None
    """mlp, cnn, pooled-cnn, vit, resnet20, resnet18 or resnet50; by default what suits the data set and the method. sih
    takes mlp or resnet18, dbvae an encoder without batch normalisation."""
    weights: MaybePath = None
    """Start a ResNet from a torchvision state dict (.safetensors or .npz); its last layer is left out."""
    epochs: MaybeInt = None
    """Passes over the training set; by default what suits the data set."""
    batch_size: MaybeInt = None
    """Samples per step; by default what suits the data set."""
    learning_rate: MaybeFloat = None
    """Highest learning rate; by default what suits the data set."""
    weight_decay: MaybeFloat = None
    """Decoupled weight decay (AdamW); by default what suits the data set."""
    augment: Annotated[bool | None, arg(metavar="{True,False}")] = None
    """Train on pictures shifted at random, and mirrored where the label survives that; by default with dbvae only."""
    seed: int = 0
    """Seed of the data, the model and the training."""
    overwrite: bool = False
    """Start afresh where OUT already has a run."""


@dataclass(frozen=True, kw_only=True)
class Debias:
    """Repair a trained run with held-out counterfactual pairs, accept or roll back, and measure again.

    Reads the model and the data set of RUN, leaves it as it is, and writes the repaired run to OUT. Or, for a model
    that was trained elsewhere: reads features and the last layer from files, and writes the repaired layer to
    OUT/head.npz. Or, with --data language, a GPT-2 or a BERT: the repaired checkpoint goes to OUT/model.
    """

    run: Annotated[Path | None, Positional, arg(metavar="[RUN]")] = None
    """Folder of the trained run; none with --features."""
    out: Path
    """Folder of the repaired run; made if missing."""
    data: Annotated[Literal["language"] | None, arg(metavar="{language}")] = None
    """Instead of RUN: language, for a language model. Sentences in which occupations go with a pronoun are made even;
    StereoSet, CrowS-Pairs, Winogender and WikiText-2 are measured where --data-dir has them."""
    checkpoint: MaybePath = None
    """With --data language: folder of a GPT-2 or a BERT in the layout of Hugging Face (config.json, model.safetensors,
    tokenizer files). Without it a small model with a planted bias is trained first."""
    kind: Literal["gpt2", "bert"] = "gpt2"
    """With --data language and no --checkpoint: the small model."""
    features: MaybePath = None
    """Instead of RUN: an .npz file of feature matrices. train, train_label; edit, edit_twin, edit_label; accept,
    accept_label; accept_pairs, accept_twin, accept_pairs_label; the last five also as test."""
    head: MaybePath = None
    """With --features: an .npz file of the last layer, one matrix [d k] or [k d] and at most one vector."""
    factor: MaybePath = None
    """With --features: a factor that --save-factor wrote, instead of train and train_label."""
    save_factor: MaybePath = None
    """With --features: write the factor of the training objective to this file, for edits without training data."""
    bias: Annotated[Literal["pair", "gap"] | None, arg(metavar="{pair,gap}")] = None
    """With --features, what twins are. pair: the same example with another attribute (default); gap: a different
    example of the same label."""
    method: Literal["fmd", "dfr", "mixing"] = "fmd"
    """fmd: Fast Model Debias, edits the last layer (or --block) in rounds; dfr: refits the last layer on group-balanced
    held-out data; mixing: fine-tunes how the first layer mixes colours, and the last two layers, on held-out pairs."""
    block: Annotated[
        Literal["head", "last-2", "last-3", "input-row", "transform", "mlp", "top"] | None,
        arg(metavar="{head,last-2,last-3,input-row,transform,mlp,top}"),
    ] = None
    """FMD: what is edited. head (default): the last layer; last-2, last-3: that many layers; input-row: of a table, the
    input row of the protected column. Of a language model: transform, the final transform and the bias of the logits;
    mlp, the perceptron of the last block; top (default): both."""
    aligned_floor: float = 0.10
    """FMD: accuracy on bias-aligned samples that the edit may cost; 1 for no limit."""
    rounds: int = 10
    """FMD: re-linearised rounds, each with a line search."""
    direction: Annotated[Literal["ext", "gradB"] | None, arg(metavar="{ext,gradB}")] = None
    """FMD: ext, the paper's external pairs; gradB, the bias gradient alone (less bias, slightly less accurate).
    By default what suits the data set."""
    pairs: MaybeInt = None
    """FMD: use at most so many held-out pairs; by default all of the edit split."""
    baselines: bool = True
    """Also fit DFR, fine-tuning and training from scratch on the same held-out data, for the comparison."""
    data_dir: MaybePath = None
    """Folder with the data set's files, if it has moved since the training."""
    seed: int = 0
    """Seed of the edit: which training rows give the curvature, and the intervals."""
    overwrite: bool = False
    """Replace results that are already in OUT."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Which attribute is a shortcut, how strongly, on which pixels, because of which samples, and what to do.

    audit RUN --out DIR answers all five about a trained or repaired run. audit --predictions FILE --out DIR answers
    what predictions of any model can: which column is a shortcut, how strongly. Both write results.json, report.html,
    report.md and model_card.md to DIR.

    audit RUN alone shows what the run has measured; with --maps where its model looks, with --patches where the data
    show the bias, and then both also go into the results.json and the report.html of RUN.
    """

    run: Annotated[Path | None, Positional, arg(metavar="[RUN]")] = None
    """Folder of the run; none with --predictions."""
    predictions: MaybePath = None
    """Instead of RUN: a CSV file with the columns label and predicted, one for each candidate attribute, and, if there
    are training rows for the counts, split (train or test)."""
    out: MaybePath = None
    """Folder for the report; made if missing."""
    candidates: MaybeNames = None
    """With RUN and --out: further attributes. Of a folder, columns of its metadata.csv; of adult, utkface, celeba other
    attributes of theirs."""
    attribute: MaybeStr = None
    """With RUN and --out: what the run's own attribute is called, where its data set does not say (a folder)."""
    fix: bool = False
    """With RUN and --out: apply the recommended repair, if there is one, and test it on the test set. The repaired
    model goes to OUT/params.npz if it holds."""
    pixels: Annotated[
        Literal["auto", "maps", "patches", "both", "none"], arg(metavar="{auto,maps,patches,both,none}")
    ] = "auto"
    """With RUN and --out: maps of the model, patches of the data, both or none; auto: what fits."""
    discover: Annotated[bool | None, arg(metavar="{True,False}")] = None
    """With RUN and --out: look for shortcuts that no attribute names; by default where no attribute is known."""
    judges: Annotated[Literal["aug-cell", "sih"], arg(metavar="{aug-cell,sih}")] = "aug-cell"
    """Who looks for them: networks that see shapes badly, or the biased branch of SiH."""
    maps: bool = False
    """Class maps (Grad-CAM of the predicted class) of every test picture; the model has to be one for pictures that
    keeps places: train with --model cnn or pooled-cnn."""
    patches: bool = False
    """Train two small networks on patches, one for the bias attribute and one for the label, and map what they say on
    held-out pictures; a minute for small ones. The maps at full size go to RUN/patches.npz."""
    data_dir: MaybePath = None
    """With --maps or --patches: folder with the data set's files, if it has moved since the training."""
    seed: int = 0
    """With --out: of the intervals, halves and small networks."""
    overwrite: bool = False
    """With --out: replace results that are already in OUT."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Hold a run to a bound, for continuous integration: one line that says why, and exit code 1 where it fails.

    Judged is what was measured on the test set, after the repair if RUN is one.
    """

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """Folder of the run."""
    max_gap: MaybeFloat = None
    """The most that accuracy may fall from bias-aligned to bias-conflicting samples, as a fraction."""
    min_worst_group: MaybeFloat = None
    """The least accuracy of the worst group, as a fraction."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """The papers' tables by the published protocol, beside the published rows.

    Every row is written to OUT as soon as it is measured; the same command carries on where it was stopped.
    """

    table: Annotated[str, Positional]
    """Which table: colored-mnist, or corrupted-cifar10, whose ResNets want an accelerator."""
    out: Path
    """JSON file of the rows; made if missing, and added to if not."""
    data_dir: MaybePath = None
    """Folder with the data set's files; without it the environment variable JAXDEBIAS_DATA."""
    seeds: int = 1
    """Seeds 0 to SEEDS - 1; the papers use 10."""
    methods: tuple[str, ...] = ("erm", "sih", "aug-cell")
    """Of erm, sih, sih-fixed, aug-cell, lff, disent, group-balanced; on digits also gce, aug-cell-cnn, disent-official,
    jtt and group-dro. A name with @plain, @worst-class or @worst-group (an oracle) chooses the epoch on held-out rows,
    not by the protocol."""
    ratios: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    """Shares of conflicting training samples."""


@dataclass(frozen=True, kw_only=True)
class List:
    """The data sets by name, what each needs, and whether its files are there."""

    data_dir: MaybePath = None
    """Folder to look into; without it the environment variable JAXDEBIAS_DATA."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn the files of a data set into TFDS records (array_record) that any JAX input pipeline reads."""

    name: Annotated[str, Positional]
    """Name of the data set."""
    data_dir: Path
    """Folder with the original files."""
    out: MaybePath = None
    """Folder for the records; by default DATA_DIR/tfds."""
    conflicting: MaybeFloat = None
    """Share of bias-conflicting training samples, for data sets that are made with one."""
    image_size: MaybeInt = None
    """Height and width to which the images of a folder are resized."""
    seed: MaybeInt = None
    """Seed of the data, for data sets that are made with one."""


Data = Annotated[
    Annotated[List, subcommand("list")] | Annotated[Prepare, subcommand("prepare")],
    subcommand("data", description="List the data sets, or prepare one for other input pipelines."),
]
Command = (
    Annotated[Quickstart, subcommand("quickstart")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Debias, subcommand("debias")]
    | Annotated[Audit, subcommand("audit")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Reproduce, subcommand("reproduce")]
    | Data
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `jaxdebias`. Bad input is one line on stderr and exit code 2."""
    try:
        _run(_parse(arguments))
    except (ContractError, FloatingPointError) as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone; what is left unprinted has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(arguments: list[str] | None) -> Quickstart | Train | Debias | Audit | Check | Reproduce | List | Prepare:
    """Parses the command; tyro's boxed error becomes one line."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                Command,
                prog="jaxdebias",
                args=arguments,
                config=(OmitSubcommandPrefixes,),
                description="Find the shortcut a classifier has learned, and take it out again.",
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise SystemExit(_complain(_one_line(box.getvalue()))) from None


def _one_line(box: str) -> str:
    """What a boxed, ruled message says, on one line: its first paragraph, with the advice of its second."""
    paragraphs: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        line = line.strip("│ ")
        if line.startswith(("╭", "╰")):
            continue
        if not line.strip("─- "):
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    if "╭" not in box:
        del paragraphs[0]  # where the terminal knows no such characters, the title is a paragraph of its own
    said = [" ".join(paragraph) for paragraph in paragraphs if paragraph] or ["bad arguments"]
    if said[0].startswith("Missing from"):
        command, names = said[0].split(":", 1)
        said[0] = f"{command}: {', '.join(re.findall(r'--[a-z][a-z-]*(?= [A-Z{])|(?:^ *)[A-Z]+(?= )', names))}"
    if said[1:] and said[1].startswith("Perhaps") and (near := re.search(r"--[a-z-]+", said[1])):
        said[0] += f" (did you mean {near[0]}?)"
    elif said[1:] and said[1].startswith("Available"):
        said[0] += f" ({said[1]})"
    return f"{said[0].rstrip('.')}; see --help"


def _complain(message: str) -> int:
    print("jaxdebias: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _run(command: Quickstart | Train | Debias | Audit | Check | Reproduce | List | Prepare) -> None:
    from jaxdebias.app import progress
    from jaxdebias.app import train as runs
    from jaxdebias.data import _registry as registry
    from jaxdebias.report import _tables as tables

    match command:
        case Quickstart():
            results = runs.quickstart(
                command.out,
                conflicting=command.conflicting,
                seed=command.seed,
                overwrite=command.overwrite,
                watch=progress.progress_bar,
            )
            tables.print_summary(results)
        case Train():
            config = runs.TrainConfig(
                data=command.data,
                data_dir=command.data_dir,
                method=command.method,
                model=command.model,
                weights=command.weights,
                epochs=command.epochs,
                batch_size=command.batch_size,
                learning_rate=command.learning_rate,
                weight_decay=command.weight_decay,
                augment=command.augment,
                seed=command.seed,
                options=_given(
                    command,
                    "conflicting",
                    "attribute",
                    "target",
                    "image_size",
                    "held_out",
                    "max_train",
                    "proxies",
                    "without",
                    "limit",
                    "cache_dir",
                ),
            )
            results = runs.train(config, command.out, overwrite=command.overwrite, watch=progress.progress_bar)
            tables.print_summary(results)
        case Debias(data="language"):
            from jaxdebias.app import language as language_runs
            from jaxdebias.report import language_markdown as language_page

            for name in ("run", "features", "head", "factor", "save_factor", "bias", "pairs"):
                expect(
                    getattr(command, name) is None,
                    f"--{name.replace('_', '-')}",
                    "none with --data language",
                    getattr(command, name),
                )
            expect(command.method == "fmd", "--method", "fmd for a language model", command.method)
            given = command.data_dir or os.environ.get("JAXDEBIAS_DATA")
            config = language_runs.LanguageDebiasConfig(
                checkpoint=command.checkpoint,
                kind=command.kind,
                data_dir=None if given is None else Path(given),
                block=command.block or "top",
                direction=command.direction or "gradB",
                rounds=command.rounds,
                baselines=command.baselines,
                seed=command.seed,
            )
            print(
                language_page.markdown(
                    language_runs.debias_language(
                        config, command.out, overwrite=command.overwrite, observe=progress.print_line
                    )
                )
            )
        case Debias(features=None):
            expect(command.checkpoint is None, "--checkpoint", "--data language beside it", command.checkpoint)
            expect(
                command.run is not None, "debias", "the folder of a trained run, or --features with --head", "neither"
            )
            for name in ("head", "factor", "save_factor", "bias"):
                expect(
                    getattr(command, name) is None,
                    f"--{name.replace('_', '-')}",
                    "--features beside it",
                    "the folder of a run",
                )
            config = runs.DebiasConfig(
                method=command.method,
                rounds=command.rounds,
                direction=command.direction,
                pairs=command.pairs,
                block=command.block or "head",
                aligned_floor=None if command.aligned_floor >= 1 else command.aligned_floor,
                baselines=command.baselines,
                data_dir=command.data_dir,
                seed=command.seed,
            )
            results = runs.debias(
                command.run, config, command.out, overwrite=command.overwrite, watch=progress.progress_bar
            )
            tables.print_summary(results)
        case Debias():
            from jaxdebias.app import features as feature_files

            expect(command.run is None, "debias", "the folder of a run or --features, not both", command.run)
            expect(command.head is not None, "--head", "an .npz file of the last layer, with --features", None)
            config = feature_files.FeatureConfig(
                method=command.method,
                rounds=command.rounds,
                direction=command.direction or "ext",
                pairs=command.pairs,
                bias=command.bias or "pair",
                seed=command.seed,
            )
            tables.print_repair(
                feature_files.debias_features(
                    command.features,
                    command.head,
                    command.out,
                    config,
                    factor=command.factor,
                    save_factor=command.save_factor,
                    overwrite=command.overwrite,
                )
            )
        case Audit(predictions=None, out=None):
            expect(command.run is not None, "audit", "the folder of a run, or --predictions with --out", "neither")
            for name in ("candidates", "attribute", "fix", "discover"):
                expect(not getattr(command, name), f"--{name}", "--out beside it", getattr(command, name))
            for name in ("pixels", "judges"):
                expect(
                    getattr(command, name) == getattr(Audit, name),
                    f"--{name}",
                    "--out beside it",
                    getattr(command, name),
                )
            tables.print_summary(
                runs.audit_run(command.run, maps=command.maps, patches=command.patches, data_dir=command.data_dir)
            )
        case Audit(predictions=None):
            from jaxdebias.app import audit as audit_runs

            expect(command.run is not None, "audit", "the folder of a run, or --predictions", "neither")
            for name in ("maps", "patches"):
                expect(not getattr(command, name), f"--{name}", f"--pixels {name} with --out", f"--{name}")
            config = audit_runs.AuditConfig(
                candidates=command.candidates or (),
                attribute=command.attribute,
                pixels=command.pixels,
                discover=command.discover,
                judges=command.judges,
                fix=command.fix,
                data_dir=command.data_dir,
                seed=command.seed,
            )
            print(audit_runs.audit_in_full(command.run, command.out, config, overwrite=command.overwrite))
        case Audit():
            from jaxdebias.app import predictions as prediction_files

            expect(command.run is None, "audit", "the folder of a run or --predictions, not both", command.run)
            expect(command.out is not None, "--out", "a folder, with --predictions", "none")
            for name in ("maps", "patches", "candidates", "attribute", "fix", "discover"):
                expect(not getattr(command, name), f"--{name}", "the folder of a run", "--predictions")
            for name in ("pixels", "judges"):
                expect(
                    getattr(command, name) == getattr(Audit, name), f"--{name}", "the folder of a run", "--predictions"
                )
            from jaxdebias.report import answers

            print(
                answers.text(
                    prediction_files.audit_predictions(
                        command.predictions, command.out, seed=command.seed, overwrite=command.overwrite
                    )
                )
            )
        case Check():
            from jaxdebias.app import check as gate
            from jaxdebias.results.records import read_results

            verdict = gate.gate(
                read_results(command.run), max_gap=command.max_gap, min_worst_group=command.min_worst_group
            )
            print(verdict.reason)
            if not verdict.passed:
                sys.exit(1)
        case Reproduce():
            from jaxdebias import reproduce

            check_choice("table", command.table, reproduce.DATA)
            config = reproduce.TableConfig(
                data=command.table,
                data_dir=registry.files_of(command.table, command.data_dir),
                seeds=command.seeds,
                methods=command.methods,
                ratios=command.ratios,
            )
            tables.print_reproduced(reproduce.reproduce_table(config, command.out, observe=progress.print_line))
        case List():
            columns = {"name": "name", "kind": "kind", "what it is": "summary", "needs": "needs", "ready": "found"}
            tables.print_rows(registry.describe(command.data_dir), columns)
        case Prepare():
            print(
                registry.prepare(
                    command.name,
                    command.data_dir,
                    command.out or command.data_dir / "tfds",
                    **_given(command, "conflicting", "image_size", "seed"),
                )
            )


def _given(command: Train | Prepare, *names: str) -> dict[str, Any]:
    """The options of a data set that the user did give."""
    return {name: value for name in names if (value := getattr(command, name)) is not None}


if __name__ == "__main__":
    main()
