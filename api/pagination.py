"""Places in a list that stay right while the list grows."""

import base64
import json
from datetime import datetime

from jobs.tables import Job


def encode_cursor(job: Job) -> str:
    """The place behind this job, as text that means nothing to its bearer."""
    place = json.dumps([job.created_at.isoformat(), job.id])
    return base64.urlsafe_b64encode(place.encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Where a cursor points, for `repository.list_jobs`. Raises ValueError for what is none."""
    try:
        moment, job_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        created_at = datetime.fromisoformat(moment)
    except (ValueError, TypeError):
        raise ValueError("is not a cursor of this list") from None
    if created_at.tzinfo is None or not isinstance(job_id, str) or not job_id.isprintable():
        raise ValueError("is not a cursor of this list")
    return created_at, job_id
