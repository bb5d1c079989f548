"""Addresses that want to be told."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["webhooks"])
