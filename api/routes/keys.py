"""Keys, and what their owners may use."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["keys"])
