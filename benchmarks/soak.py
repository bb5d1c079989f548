"""Random faults at random moments, and no job lost, done twice or done wrong: `make soak ROUNDS=200`.

    python benchmarks/soak.py --rounds 200                  # about half an hour on two cores
    python benchmarks/soak.py --rounds 3 --seed 7 --json    # other faults at other moments
    python benchmarks/soak.py --rounds 1 --sabotage lose    # see that it would notice

A deployment is started on this machine: PostgreSQL, Redis, the API, two Celery workers; what dies is started again, as
a container would be. Each round submits one to three jobs of a few seconds, and one or two faults befall them; three
rounds run at a time. Afterwards every job must be over, once, with the bytes of a run to which nothing happened.

*Lost* is a job that does not end, that fails, or that is cancelled without having been asked to; but for one that the
service gave up after three of its attempts had been killed. *Doubled* is a job that succeeded or was published twice,
one whose attempts wrote beside one another, or a submission that made two jobs. Any of these, and a worker that does
not end when told to, makes the exit code 1.
"""

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, only this file's folder is searched
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.soak_faults import FAULTS, Battered
from benchmarks.soak_jobs import METHODS, SEEDS, Undisturbed, Work
from benchmarks.soak_sabotage import SABOTAGE
from benchmarks.soak_verdict import Facts, attempts, faults_of, losses_without_a_blow, was_poisoned
from tests.fixtures.cluster import OVER, deployed, digests_in, until
from tests.fixtures.serving import FAST

log = logging.getLogger("soak")

AT_A_TIME = 3
"""Rounds, so that both workers always have something to do."""
BOUND_S = 240
"""A job that is not over so long after its round's last fault is lost."""
SPREAD_S = 6
"""Faults come so soon after the submission: about as long as an undisturbed job takes."""
SETTLING_S = 1.5
"""From a runner's first byte of a result to its publication."""


@dataclass
class Tally:
    """What came of a soak."""

    rounds: int = 0
    submitted: int = 0
    finished: int = 0
    cancelled: int = 0
    poisoned: int = 0
    attempts: int = 0
    lost_without_a_fault: int = 0
    """Attempts that were taken for lost on a busy machine. Their jobs go on: it only costs time."""
    seconds: float = 0
    faults: Counter[str] = field(default_factory=Counter)
    lost: dict[str, str] = field(default_factory=dict)
    doubled: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    hung: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.doubled or self.wrong or self.hung)


@dataclass(frozen=True, slots=True)
class Round:
    """What is submitted, and what befalls it; the seed of the moments."""

    key: str
    works: list[Work]
    faults: list[str]


def plan(seed: int, rounds: int) -> list[Round]:
    """The rounds of a seed. Faults are dealt from decks that have one of each, so that none is rare."""
    rng, deck, planned = random.Random(seed), [], []
    for number in range(1, rounds + 1):
        works = [Work(rng.choice([*METHODS]), rng.choice(SEEDS)) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
        if len(deck) < 2:
            deck += rng.sample([*FAULTS], len(FAULTS))
        planned.append(Round(f"{seed}-{number}", works, [deck.pop(0) for _ in range(rng.choice([1, 2]))]))
    return planned


class Soak:
    """Rounds on a cluster, and what is known of their jobs."""

    def __init__(self, battered: Battered, undisturbed: Undisturbed):
        self.battered, self.cluster, self.undisturbed = battered, battered.cluster, undisturbed
        self.jobs, self.faults = dict[str, Work](), Counter[str]()

    def run(self, rounds: list[Round]) -> None:
        """All rounds, a few at a time."""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(self.round, rounds))

    def round(self, this: Round) -> None:
        """Submit, hurt, wait."""
        start, rng = time.monotonic(), random.Random(this.key)
        jobs = {self.cluster.submit(f"{this.key}-{n}", work.spec()): work for n, work in enumerate(this.works)}
        self.jobs |= jobs
        with ThreadPoolExecutor(len(this.faults)) as pool:
            befallen = [pool.submit(self._befall, name, rng.choice([*jobs]), rng.random()) for name in this.faults]
        self.faults.update(name for name, fault in zip(this.faults, befallen, strict=True) if fault.result())
        for job_id in jobs:
            self._until_over(job_id)
        endings = [f"{work.method} {_ending(self.facts(job_id))}" for job_id, work in jobs.items()]
        faults, seconds = " + ".join(this.faults), time.monotonic() - start
        log.info("round %s, %.0f s: %s: %s", this.key, seconds, faults, ", ".join(endings))

    def facts(self, job_id: str) -> Facts:
        """What is known of a job now."""
        answer = self.cluster.ask("GET", f"/v1/jobs/{job_id}")
        if not answer.is_success:
            return Facts(None)
        manifests = self.cluster.published(job_id)
        return Facts(
            answer.json(),
            self.cluster.events(job_id),
            len(manifests),
            digests_in(manifests[0].parent) if manifests else {},
            self.undisturbed.digests(self.jobs[job_id]),
            job_id in self.battered.cancelled,
            self.battered.blows,
        )

    def tally(self) -> Tally:
        """Judge all jobs as they are now: a worker that was frozen in one round may have woken up in another."""
        tally = Tally(submitted=len(self.jobs), faults=self.faults, hung=self.battered.hung)
        for job_id in self.jobs:
            facts = self.facts(job_id)
            for name, why in faults_of(facts).items():
                getattr(tally, name)[job_id] = why
            status = facts.job and facts.job["status"]
            tally.finished += status == "succeeded"
            tally.cancelled += status == "cancelled"
            tally.poisoned += was_poisoned(facts)
            tally.attempts += len(attempts(facts.events))
            tally.lost_without_a_fault += losses_without_a_blow(facts)
        tally.doubled |= {job_id: "nobody has submitted it" for job_id in self._listed() if job_id not in self.jobs}
        return tally

    def _befall(self, name: str, job_id: str, moment: float) -> bool:
        """Let a fault happen some while after its job's submission, or as that is about to be done."""
        rng = random.Random(moment)
        match rng.choice(["later", "later", "checkpoint", "publishing"]):
            case "later":
                time.sleep(rng.uniform(0, SPREAD_S))
            case "checkpoint":
                self._await(job_id, lambda: self.cluster.checkpointed(job_id))
            case "publishing":
                self._await(job_id, lambda: self.cluster.publishing(job_id))
                time.sleep(rng.uniform(0, SETTLING_S))
        return FAULTS[name](self.battered, rng, job_id)

    def _await(self, job_id: str, moment: Callable[[], bool]) -> None:
        """The moment; or the job's end, should that be missed."""
        end, look = time.monotonic() + 60, 0.0
        while not moment() and time.monotonic() < end:
            if time.monotonic() > look:
                if self._is_over(job_id):
                    return
                look = time.monotonic() + 1
            time.sleep(0.01)

    def _is_over(self, job_id: str) -> bool:
        answer = self.cluster.ask("GET", f"/v1/jobs/{job_id}")
        return not answer.is_success or answer.json()["status"] in OVER

    def _until_over(self, job_id: str) -> None:
        with suppress(AssertionError):  # it is lost, then
            until(lambda: self._is_over(job_id), "it is over", BOUND_S, every=0.3)

    def _listed(self) -> list[str]:
        """The ids of all jobs that the service knows."""
        found, cursor = [], None
        while True:
            query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
            page = self.cluster.ask("GET", "/v1/jobs", params=query).json()
            found += [job["id"] for job in page["data"]]
            if not (cursor := page["next_cursor"]):
                return found


def _ending(facts: Facts) -> str:
    wrong = "; ".join(f"{name.upper()}: {why}" for name, why in faults_of(facts).items())
    status = facts.job["status"] if facts.job else "gone"
    return f"{status} in {len(attempts(facts.events))}" + (f" ({wrong})" if wrong else "")


def table(tally: Tally) -> str:
    """The tally for people."""
    rows: dict[str, Any] = {
        "rounds": tally.rounds,
        "jobs submitted": tally.submitted,
        "finished": tally.finished,
        "cancelled as asked": tally.cancelled,
        "given up after three killed attempts": tally.poisoned,
        "lost": len(tally.lost),
        "doubled": len(tally.doubled),
        "wrong bytes": len(tally.wrong),
        "workers that would not end": len(tally.hung),
        "attempts": tally.attempts,
        "attempts lost without a fault": tally.lost_without_a_fault,
        "seconds": f"{tally.seconds:.0f}",
        "faults": tally.faults.total(),
        **{f"  {name}": count for name, count in sorted(tally.faults.items())},
    }
    lines = [f"{name:<40}{value:>8}" for name, value in rows.items()]
    for name in ("lost", "doubled", "wrong"):
        lines += [f"{name}: {job_id}: {why}" for job_id, why in getattr(tally, name).items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Soak; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the deployment's files and logs here")
    parser.add_argument("--sabotage", choices=[*SABOTAGE], help="do this to a job at the end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)

    start, rounds = time.monotonic(), plan(options.seed, options.rounds)
    undisturbed = Undisturbed(work for this in rounds for work in this.works)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        home = options.keep or Path(temporary) / "home"
        with deployed(home, workers=2) as cluster, Battered(cluster, float(FAST["DREAM_LEASE_S"])) as battered:
            soak = Soak(battered, undisturbed)
            soak.run(rounds)
            if options.sabotage:
                SABOTAGE[options.sabotage](cluster)
            tally = soak.tally()
    tally.rounds, tally.seconds = options.rounds, time.monotonic() - start
    sys.stdout.write(json.dumps(vars(tally), indent=2) + "\n" if options.json else table(tally))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
