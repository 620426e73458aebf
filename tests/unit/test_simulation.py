"""When planned jobs run on given machines: never more than fits, nothing before what it needs."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasescope import simulated
from phasescope.errors import PhasescopeError
from phasescope.matrix import Source, other_machine, plan, read_sheet, validated_config
from phasescope.matrix.simulation import GPU_PERCENT, Host, Job, makespan, simulate
from phasescope.study import StudyPlan
from phasescope.study.schedule import jobs_of

GB = 1e9


@st.composite
def studies(draw):
    """Jobs that each fit the largest machine, and the machines."""
    hosts = draw(
        st.lists(
            st.builds(Host, st.floats(4 * GB, 20 * GB), st.integers(1, 3), st.booleans()),
            min_size=1, max_size=3,
        )
    )  # fmt: skip
    most = max(host.usable_bytes for host in hosts)
    jobs = []
    for number in range(draw(st.integers(1, 15))):
        after = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        jobs.append(
            Job(f"m{number}", "probe", draw(st.floats(0.01, 5)), draw(st.floats(0, 1)) * most,
                draw(st.sampled_from((0, 25, 100))), tuple(after))
        )  # fmt: skip
    return jobs, hosts


@given(studies())
def test_what_is_simulated_could_happen(study):
    """If it failed, a makespan would be promised that no machine can keep."""
    jobs, hosts = study
    placed = simulate(jobs, hosts)
    assert len(placed) == len(jobs)
    ends = {p.job.cell: p.end for p in placed}
    for p in placed:
        assert p.end == p.begin + p.job.hours
        assert p.begin >= p.ready >= max((ends[jobs[a].cell] for a in p.job.after), default=0)
        beside = [
            q.job for q in placed if q.host == p.host and (q.begin <= p.begin < q.end or q is p)
        ]
        host = hosts[p.host]
        assert sum(job.needed_bytes for job in beside) <= host.usable_bytes * (1 + 1e-9)
        busy = [job for job in beside if job.hours]
        assert len(busy) <= host.slots
        assert not host.gpu or sum(job.gpu_percent for job in busy) <= GPU_PERCENT


@given(studies())
def test_nobody_waits_while_there_is_room(study):
    """If it failed, the simulated machines would idle, and the plan ask for more of them."""
    jobs, hosts = study
    one = max(hosts, key=lambda h: h.usable_bytes)
    alone = makespan(simulate(jobs, [replace(one, slots=1)]))
    assert alone == pytest.approx(sum(job.hours for job in jobs))
    for p in simulate(jobs, hosts):
        assert (p.freed_by is None) == (p.begin == p.ready)


def test_a_large_cell_runs_alone_and_small_ones_side_by_side():
    """If it failed, two cells would be held in memory that has room for one."""
    large = [Job(f"large{n}", "probe", 2.0, 60 * GB) for n in range(2)]
    small = [Job(f"small{n}", "probe", 1.0, 20 * GB) for n in range(4)]
    assert makespan(simulate(large, [Host(100 * GB, 8)])) == 4
    assert makespan(simulate(small, [Host(100 * GB, 8)])) == 1
    assert makespan(simulate(large, [Host(100 * GB, 8)] * 2)) == 2
    with pytest.raises(PhasescopeError, match=r"large0, probe: needs 60\.0 GB"):
        simulate(large, [Host(50 * GB, 8)])


def test_one_gpu_takes_one_large_job_or_four_small():
    """If it failed, a Mac's jobs would be promised a GPU each."""
    large = [Job(f"l{n}", "probe", 1.0, GB, 100) for n in range(3)]
    small = [Job(f"s{n}", "probe", 1.0, GB, 25) for n in range(8)]
    host = Host(100 * GB, 8, gpu=True)
    assert makespan(simulate(large, [host])) == 3
    assert makespan(simulate(small, [host])) == 2


def study_of(count: int, hours: float | None) -> StudyPlan:
    """A study of `count` models of 1, 2, 3, … billion parameters; the first cell's hours known."""
    config = validated_config({"study": "s", "sheet": "models.tsv", "designs": ["addition"]}, ["c"])
    row = read_sheet("models.tsv")[0]
    models = [
        replace(row, id=f"m{n}", huggingface_id=f"o/m{n}", parameters_total_billion=n + 1.0,
                parameters_active_billion=n + 1.0)
        for n in range(count)
    ]  # fmt: skip
    sources: dict[str, Source | None] = {m.id: None for m in models}
    cells = plan(models, config, other_machine(1000, metal=True), sources, {})
    if hours is not None:
        stages = ("probe", "select", "intervene", "cohere")
        cells[0] = replace(cells[0], hours=dict.fromkeys(stages, hours))
    return StudyPlan(config, models, cells, None, sources)


def test_many_models_are_laid_out():
    """If it failed, nobody could say how many machines a large study needs."""
    study = study_of(200, 0.01)
    jobs = jobs_of(study)
    assert len(jobs) == 600 * 5
    one, four = (makespan(simulate(jobs, [Host(5e12, 64)] * machines)) for machines in (1, 4))
    assert one / 4.2 < four < one / 3.8
    said = simulated.text(study, [Host(5e12, 64)] * 4, speedup=2.0)
    assert "3000 jobs of 600 cells on 4 machines" in said and "waiting for room" in said


def test_hours_that_nobody_knows_go_by_parameters():
    """If it failed, a model without a config would take no time, or the study could not be laid."""
    jobs = {(job.cell, job.stage): job.hours for job in jobs_of(study_of(3, 1.0), speedup=2.0)}
    assert jobs["m0/16", "probe"] == pytest.approx(0.5)
    assert jobs["m2/16", "probe"] == pytest.approx(1.5, rel=0.01)
    with pytest.raises(PhasescopeError, match="no cell's hours are known"):
        jobs_of(study_of(1, None))


def test_the_console_says_when_a_run_will_end():
    """If it failed, nobody would know whether to wait for a run or to come back on Monday."""
    now = datetime(2026, 1, 1)
    study = study_of(1, 1.0)
    study.cells[:] = study.cells[:1]
    said = simulated.expected_end(study, Host(5e12, 8), now)
    assert said == "expected end: Thursday 01 January 2026, 04:00, after 4.0 hours"
    assert simulated.expected_end(study_of(1, None), Host(5e12, 8), now) is None
