"""What a job would take."""

from dataclasses import asdict

from fastapi import APIRouter

from api.dependencies import Readings, SettingsDep
from api.schemas.estimates import Estimate, QueuePlace, Seconds
from api.schemas.jobs import JobCreate
from api.security import CanRead
from api.submitting import find_upload, require_dataset
from jobs import estimates
from jobs.lifecycle import PRIORITIES

router = APIRouter(prefix="/v1", tags=["estimates"])


@router.post("/estimates")
def estimate_job(body: JobCreate, reader: CanRead, readings: Readings, settings: SettingsDep) -> Estimate:
    """What a job would take if it were submitted, and its place in the queue. Refused as it would be then."""
    recipe = body.spec.resolve()
    require_dataset(body.spec, settings)
    with readings.begin() as session:
        dataset = find_upload(session, recipe, reader.owner)
        found = estimates.estimate(session, recipe, PRIORITIES[body.priority], dataset)
    return Estimate(
        resolved_spec=recipe.model_dump(mode="json"),
        steps=recipe.steps,
        seconds=Seconds(**asdict(found.seconds)) if found.seconds else None,
        memory_bytes=found.memory_bytes,
        disk_bytes=found.disk_bytes,
        queue=QueuePlace(position=found.position),
        fits=found.fits,
        note=found.note,
    )
