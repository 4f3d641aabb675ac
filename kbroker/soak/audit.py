"""The judgement at the end: what ran, what was reported, and what should have been."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kbroker.event import Cause
from kbroker.soak.database import Ending
from kbroker.soak.ledger import Line
from kbroker.soak.workload import KINDS, Op, Request

SUCCESS = "success"
# A launch is published, and its pod created, within this time after it was wanted, in seconds.
_UNDER_WAY = 60.0
# What was asked for before a scheduler read its requests, it takes for an earlier life's.
_STARTING = 5.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known at the end of a soak.

    Attributes:
        requests: what was wanted, by time.
        ledger: what ran.
        endings: final states by scheduler, in the order of telling.
        hits: uid of a pod that was harmed from outside → how.
        crashes: scheduler → when it was started again, in seconds from the beginning.
        left: what is still there and should not be: pods, keys, running tasks.
    """

    requests: Sequence[Request]
    ledger: Sequence[Line]
    endings: Mapping[str, Sequence[Ending]]
    hits: Mapping[str, str] = field(default_factory=dict)
    crashes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    left: Sequence[str] = ()


@dataclass(slots=True)
class Verdict:
    """What broke the promises; empty lists when nothing did.

    Attributes:
        tasks: launches that were wanted.
        executed: containers that started.
        lost: launches that never ran, or of which nobody was told how they ended.
        duplicated: launches that started more than once.
        stuck: what is still there and should not be.
        wrong_state: launches whose state is not what really happened.
    """

    tasks: int = 0
    executed: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong_state: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.duplicated or self.stuck or self.wrong_state)


def judge(evidence: Evidence) -> Verdict:
    """Compare everything with everything."""
    wanted = _wanted(evidence.requests)
    verdict = Verdict(
        tasks=len(wanted),
        executed=sum(not line.end for line in evidence.ledger),
        stuck=list(evidence.left),
    )
    ran: dict[str, list[Line]] = defaultdict(list)
    for line in evidence.ledger:
        ran[line.launch].append(line)
    told: dict[str, list[Ending]] = defaultdict(list)
    for endings in evidence.endings.values():
        for ending in endings:
            told[ending.launch].append(ending)
    for launch in wanted.values():
        _judge(launch, ran[launch.id], told[launch.id], evidence, verdict)
    verdict.wrong_state += [f"{name}: nobody wanted it" for name in {*ran, *told} - {*wanted}]
    return verdict


@dataclass(slots=True)
class _Launch:
    """A launch that was wanted, and what became of the wish."""

    run: Request
    revoked: bool = False
    replaced: bool = False

    @property
    def id(self) -> str:
        return self.run.launch

    @property
    def matters(self) -> bool:
        """Whether its end is to be told."""
        return not (self.revoked or self.replaced)


def _wanted(requests: Iterable[Request]) -> dict[str, _Launch]:
    launches: dict[str, _Launch] = {}
    newest: dict[str, _Launch] = {}
    for request in requests:
        if request.op is Op.RUN:
            if request.task in newest:
                newest[request.task].replaced = True
            newest[request.task] = launches[request.launch] = _Launch(request)
        elif request.op is Op.REVOKE:
            newest[request.task].revoked = True
    return launches


def _judge(
    launch: _Launch,
    ran: Sequence[Line],
    told: Sequence[Ending],
    evidence: Evidence,
    verdict: Verdict,
) -> None:
    kind = KINDS[launch.run.kind]
    starts = [line for line in ran if not line.end]
    uids = {line.uid for line in starts}
    again = len(starts) > 1 and not (kind.does == "restart" and len(uids) == 1)
    if len(uids) > 1 or again:
        verdict.duplicated.append(f"{launch.id}: started {len(starts)} times in pods {uids}")
    harmed = any(uid in evidence.hits for uid in (*uids, *(ending.uid for ending in told)))
    if launch.matters and not told:
        verdict.lost.append(f"{launch.id}: its end was never told; {len(starts)} starts")
    crashes = evidence.crashes.get(launch.run.scheduler, ())
    forgotten = any(-_STARTING < at - launch.run.at < _UNDER_WAY for at in crashes)
    if launch.replaced and not launch.revoked and kind.starts and not starts and not forgotten:
        verdict.lost.append(f"{launch.id}: never ran, and a later launch of its task took over")
    _judge_states(launch, ran, told, harmed=harmed, verdict=verdict)


def _judge_states(
    launch: _Launch, ran: Sequence[Line], told: Sequence[Ending], *, harmed: bool, verdict: Verdict
) -> None:
    kind = KINDS[launch.run.kind]
    if len({(ending.state, ending.cause) for ending in told}) > 1:
        verdict.wrong_state.append(f"{launch.id}: told differently: {[*map(_words, told)]}")
    lives = [ending.life for ending in told]
    if len(lives) != len(set(lives)):
        verdict.wrong_state.append(f"{launch.id}: told twice in one life: {[*map(_words, told)]}")
    ended = {line.uid: line.code for line in ran if line.end}
    for ending in told:
        problem = _problem(ending, ended, kind.causes, harmed=harmed)
        if problem:
            verdict.wrong_state.append(f"{launch.id}: {_words(ending)}: {problem}")


def _problem(
    ending: Ending, ended: Mapping[str, int | None], causes: frozenset[Cause], *, harmed: bool
) -> str:
    """Why a final state cannot be true; "" if it can."""
    if ending.state == SUCCESS:
        return "" if ended.get(ending.uid) == 0 else "it never ended with exit code 0"
    if ended.get(ending.uid) == 0 and not harmed:
        return "it ended with exit code 0"
    if ending.cause in causes or harmed:
        return ""
    return f"it should have ended as {', '.join(sorted(causes)) or SUCCESS}"


def _words(ending: Ending) -> str:
    why = f" {ending.cause} (exit code {ending.exit_code})" if ending.cause else ""
    return f"{ending.state}{why} after {ending.attempts} attempts in life {ending.life}"
