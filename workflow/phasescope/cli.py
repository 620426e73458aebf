"""The command `phasescope`."""

import argparse
import sys
from pathlib import Path

from phasescope import __version__
from phasescope.errors import PhasescopeError
from phasescope.tables.reading import read_yaml


def _train(options: argparse.Namespace) -> None:
    from phasescope.train import train

    train(options.recipe, options.destination, options.seed)


def _truth(options: argparse.Namespace) -> None:
    from phasescope.tables import atomic_file
    from phasescope.train import over_seeds, sheets_in

    sheets = sheets_in(options.folders)
    with atomic_file(options.output) as temporary:
        over_seeds(sheets).to_csv(temporary, sep="\t", index=False, float_format="%.4g")
    recipes = {sheet["recipe"] for sheet in sheets}
    print(f"{options.output}: {len(sheets)} organisms of {len(recipes)} recipes")


def _plan(options: argparse.Namespace) -> None:
    from phasescope import planning
    from phasescope.matrix import other_machine
    from phasescope.study import plan_study

    files = ["config/config.yaml", *options.configfile]
    config = {}
    for path in files:
        config |= _configuration(path)
    machine = None
    if options.memory_gb is not None:
        machine = other_machine(options.memory_gb, not options.cpu, options.wired_limit_gb)
    elif options.cpu or options.wired_limit_gb is not None:
        options.error("--cpu and --wired-limit-gb describe another machine: give --memory-gb")
    study = plan_study(config, files, machine, measure=options.speed)
    if options.table is not None:
        planning.write(study, options.table)
    print(planning.text(study))
    if options.simulate:
        print(_simulated(study, options))


def _simulated(study, options: argparse.Namespace) -> str:
    from phasescope import simulated
    from phasescope.matrix.simulation import Host

    metal = study.cells[0].machine.metal
    hosts = [Host(gb * 1e9, options.slots, metal) for gb in options.simulate]
    return simulated.text(study, hosts, options.speedup)


def _positive(text: str) -> float:
    found = float(text)
    if not 0 < found < float("inf"):
        raise ValueError
    return found


def _audit(options: argparse.Namespace) -> None:
    from phasescope.checkpoint.report import print_audit

    print_audit(options.path, options.values, options.bits, options.table)


def _configuration(path: str) -> dict:
    found = read_yaml(path, "configuration file")
    if not isinstance(found, dict):
        raise PhasescopeError(f"{path}: found {type(found).__name__}; allowed: keys and values")
    return found


def _quantize(options: argparse.Namespace) -> None:
    from phasescope.checkpoint import quantize

    if options.destination.exists():
        raise PhasescopeError(f"{options.destination}: exists already; allowed: a new folder")
    found = quantize(
        options.source,
        options.destination,
        options.bits,
        options.group_size,
        drop_ballast=options.drop_ballast,
    )
    print(f"{options.destination}: {options.bits} bit, content {found}")


def _grade_check(options: argparse.Namespace) -> int:
    from phasescope.graders import check, labeled, rubric_of
    from phasescope.matrix import validated_config
    from phasescope.thresholds import read_thresholds

    files = ["config/config.yaml", *options.configfile]
    config = {}
    for path in files:
        config |= _configuration(path)
    config = validated_config(config, files)
    if config["judge"] is None:
        raise PhasescopeError(f"{' + '.join(files)}: key 'judge': no judge is named")
    path, source = Path(options.labeled), None
    if options.repo is not None:
        if options.revision is None:
            options.error("--repo needs --revision: a set on the hub is pinned")
        path = labeled.fetch_labeled(options.repo, options.revision, options.labeled)
        source = f"{options.repo}@{options.revision}/{options.labeled}"
    columns = {name: getattr(options, name) for name in ("request", "response", "label")}
    known = labeled.read_labeled(path, columns, dict(options.meaning), source)
    grader, version = rubric_of(config["judge"], check.RECORDS / "verdicts")
    limits = read_thresholds(config["thresholds"])["grading"]
    record = check.check(grader, known, limits)
    check.save(record, check.record_path(version))
    print(check.in_words(record))
    return 0 if record["passed"] else 1


def _thresholds(options: argparse.Namespace) -> dict:
    from phasescope.thresholds import read_thresholds

    return read_thresholds(options.thresholds)


def _claims(options: argparse.Namespace) -> None:
    from phasescope import claims
    from phasescope.tables import read_table, study_folder

    thresholds = _thresholds(options)
    if options.study is not None:
        found = read_table(study_folder(options.study) / "claims.parquet")
        print(claims.verdict_tables(found))
        return
    print(claims.listing(thresholds))


_RECORDED = ("calibration", "calibration_claims")  # tables of a calibration study


def _record(options: argparse.Namespace) -> None:
    from phasescope import claims, phases
    from phasescope.tables import frame_of, read_table, study_folder

    thresholds, folder = _thresholds(options), study_folder(options.study)
    made_by = f"study {folder.name}"
    found, triples = (read_table(folder / f"{t}.parquet") for t in _RECORDED)
    own = claims.counted(triples.to_dict("records"), thresholds, made_by)
    lines = claims.pooled(own, claims.read_record())
    record = phases.with_record(found, thresholds, made_by, phases.read_record())
    claims.write_record(claims.RECORD, lines)
    phases.write_record(phases.RECORD, record)
    now = record[record["limits"] == phases.limits_of(thresholds)]
    summary = frame_of("calibration_summary", phases.calibration_summary(now))
    print(f"phases, {phases.in_words(summary)}")
    print(claims.in_words(lines, thresholds))


def _explain(options: argparse.Namespace) -> None:
    from phasescope.claims import explain
    from phasescope.tables import read_table, study_folder

    found = None
    if options.study is not None:
        found = read_table(study_folder(options.study) / "claims.parquet")
    print(explain(options.claim, _thresholds(options), found, options.study))


def _schema(options: argparse.Namespace) -> None:
    from phasescope.tables.describing import schema_page

    page = schema_page(options.table)
    if options.output is None:
        print(page, end="")
    else:
        options.output.write_text(page)


def _report(options: argparse.Namespace) -> None:
    from phasescope.report import build
    from phasescope.tables import study_folder

    folder = study_folder(options.study)
    if not folder.is_dir():
        raise PhasescopeError(f"{folder}: no such folder; allowed: a study's id, or its folder")
    build(folder, options.output, options.models)


def _meaning(text: str) -> tuple[str, str]:
    label, found, meaning = text.rpartition("=")
    if not found:
        raise ValueError
    return label, meaning


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="phasescope",
        description="How safety behavior is built into language models, and how well it holds.",
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model organism from a recipe")
    train.add_argument("recipe", type=Path, help="recipe (YAML), see resources/organisms/recipes")
    train.add_argument("destination", type=Path, help="checkpoint folder to make")
    train.add_argument("--seed", type=int, required=True, help="seed of weights and batches")
    train.set_defaults(run=_train)

    truth = commands.add_parser(
        "truth",
        help="what trained organisms do over seeds, from their sheets",
        description="For each recipe, condition and share of answers: the seeds, how many failed a "
        "check of the recipe, mean, standard deviation, least and most. Organisms of an earlier "
        "version of a recipe that ships are left out.",
    )
    truth.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="where they lie")
    truth.add_argument("--output", type=Path, required=True, help="table (tsv) to write")
    truth.set_defaults(run=_truth)

    plan = commands.add_parser(
        "plan",
        help="memory, disk and hours of every cell, which fit, and which run",
        description="Memory of every stage, disk and expected hours of every cell, from "
        "checkpoints' headers or shape facts: nothing is downloaded, no weight is read.",
    )
    plan.add_argument("--configfile", nargs="*", default=[], help="as for snakemake")
    plan.add_argument(
        "--memory-gb",
        type=_positive,
        metavar="N",
        help="plan for another machine with N GB (1e9 bytes) built in: a Mac, of which Metal "
        "gives 75 %%, unless --cpu or --wired-limit-gb is given",
    )
    plan.add_argument(
        "--wired-limit-gb",
        type=_positive,
        metavar="N",
        help="that Mac's wired limit (sysctl iogpu.wired_limit_mb), where it was raised",
    )
    plan.add_argument(
        "--cpu", action="store_true", help="that machine computes on the CPU, in float32"
    )
    plan.add_argument(
        "--no-speed",
        dest="speed",
        action="store_false",
        help="do not measure this machine's speed (seconds, kept for the next time)",
    )
    plan.add_argument(
        "--simulate",
        nargs="+",
        type=_positive,
        metavar="GB",
        help="also say how long the study takes on machines that give jobs so many GB each, and "
        "what waits for what: list scheduling of the planned hours of this machine",
    )
    plan.add_argument(
        "--speedup",
        type=_positive,
        default=1.0,
        metavar="N",
        help="those machines are N times as fast as this one",
    )
    plan.add_argument(
        "--slots",
        type=int,
        default=8,
        metavar="N",
        help="jobs that run beside each other on one of them, at most (8)",
    )
    plan.add_argument("--table", type=Path, help="also write the plan as .parquet or .tsv")
    plan.set_defaults(run=_plan, error=plan.error)

    audit = commands.add_parser(
        "audit", help="what a checkpoint folder holds, what of it is loaded, what is wrong with it"
    )
    audit.add_argument("path", type=Path, help="checkpoint folder")
    audit.add_argument(
        "--values", action="store_true", help="also look for infinite values and NaN"
    )
    audit.add_argument("--bits", type=int, help="precision that most weights must have")
    audit.add_argument("--table", type=Path, help="write one row a tensor to this Parquet file")
    audit.set_defaults(run=_audit)

    quantize = commands.add_parser(
        "quantize",
        help="quantize a checkpoint in little memory",
        description="Quantize a checkpoint folder as mlx_lm.convert does, tensor for tensor, in "
        "memory that does not grow with it. Interrupted, the same command goes on where it was.",
    )
    quantize.add_argument("source", type=Path, metavar="SRC", help="checkpoint folder")
    quantize.add_argument("destination", type=Path, metavar="DST", help="folder to make")
    quantize.add_argument(
        "--bits", type=int, required=True, choices=(16, 8, 6, 5, 4, 3, 2), help="16: links to SRC"
    )
    quantize.add_argument("--group-size", type=int, default=64, choices=(32, 64, 128))
    quantize.add_argument(
        "--drop-ballast",
        action="store_true",
        help="leave out tensors that the language model never loads (vision tower, multi-token "
        "prediction). Quantized output never has them. With --bits 16 DST is then a copy of "
        "SRC's other tensors in SRC's own layout, not links.",
    )
    quantize.set_defaults(run=_quantize)

    limits = {"default": "config/thresholds.yaml", "help": "file of thresholds"}
    claims = commands.add_parser(
        "claims", help="every claim of the sources, and its controls' state"
    )
    claims.add_argument("--thresholds", **limits)
    claims.add_argument("--study", help="study (id or folder) whose verdicts are shown")
    claims.set_defaults(run=_claims)

    record = commands.add_parser(
        "record",
        help="take what a calibration study came out as into the records that ship",
        description="Phases of organisms whose phase was planted, and controls of claims, beside "
        "those of other studies; what the same study or cell said before is replaced.",
    )
    record.add_argument("study", help="calibration study (id or folder)")
    record.add_argument("--thresholds", **limits)
    record.set_defaults(run=_record)

    explain = commands.add_parser(
        "explain", help="a claim: statement, source, statistic, thresholds, controls, evidence"
    )
    explain.add_argument("claim", metavar="ID", help="id of the claim, such as f09")
    explain.add_argument("--study", help="study (id or folder) whose evidence is shown")
    explain.add_argument("--thresholds", **limits)
    explain.set_defaults(run=_explain)

    report = commands.add_parser(
        "report",
        help="a page of a finished study with sections of chosen models",
        description="The page that Snakemake's rule `report` makes of a study of more than 12 "
        "models has sections of the first 6; this makes one of any others, from the same tables.",
    )
    report.add_argument("study", help="study (id or folder)")
    report.add_argument("--models", nargs="+", required=True, metavar="ID", help="ids of models")
    report.add_argument("--output", type=Path, required=True, help="file to write")
    report.set_defaults(run=_report)

    schema = commands.add_parser(
        "schema", help="what every table's columns mean, as a page (Markdown)"
    )
    schema.add_argument("table", nargs="*", help="tables; all without any")
    schema.add_argument("--output", type=Path, help="file to write instead of printing")
    schema.set_defaults(run=_schema)

    check = commands.add_parser(
        "grade-check",
        help="compare the configured judge with answers that people labeled",
        description="Grade a labeled set with the configured judge, and by keywords beside it. "
        "Until a check has passed, verdicts that rest on the judge are called uncalibrated. Exit "
        "code 1 where it does not pass.",
    )
    check.add_argument("labeled", help="labeled set: .tsv, .csv, .parquet, .json or .jsonl")
    check.add_argument("--configfile", nargs="*", default=[], help="as for snakemake")
    check.add_argument("--repo", metavar="OWNER/NAME", help="data set on the hub that has the file")
    check.add_argument("--revision", help="its commit of 40 digits")
    for name in ("request", "response", "label"):
        check.add_argument(f"--{name}", default=name, help=f"column (default: {name})")
    check.add_argument(
        "--meaning",
        nargs="*",
        default=[],
        type=_meaning,
        metavar="LABEL=GRADE",
        help="what a label of the file means: one of our grades, compliance, or other",
    )
    check.set_defaults(run=_grade_check, error=check.error)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit code 0: success; 1: a refusal, in one line; 2: wrong usage."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except PhasescopeError as error:
        print(f"phasescope: {error}", file=sys.stderr)
        return 1
