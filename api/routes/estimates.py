"""What a job would take."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["estimates"])
