"""Owners, keys, audit log, idempotency, webhooks, uploaded datasets, workers; and what jobs know about them.

Columns are added one by one, not by copying the table: SQLite would delete every event with the old table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)
Counter = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def job_columns() -> tuple[sa.Column, ...]:
    return (
        sa.Column("owner", sa.String(64), nullable=False, server_default="local"),
        sa.Column("dataset_id", sa.String(40)),
        sa.Column("ipc", sa.Integer, nullable=False, server_default="0"),
        sa.Column("accuracy", sa.Double),
        sa.Column("protocol_hash", sa.String(64)),
        sa.Column("partial", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("artifact_bytes", sa.BigInteger),
        sa.Column("queue", sa.String(64), nullable=False, server_default="default"),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("run_seconds", sa.Double, nullable=False, server_default="0"),
        sa.Column("claimed_at", Moment),
        sa.Column("pausing_at", Moment),
        sa.Column("paused_at", Moment),
        sa.Column("expires_at", Moment),
        sa.Column("purged_at", Moment),
        sa.Column("deleted_at", Moment),
        sa.Column("parent_step", sa.Integer),
    )


JOB_INDEXES = {
    "ix_jobs_owner_created_at_id": ["owner", "created_at", "id"],
    "ix_jobs_status_priority_queued_at": ["status", "priority", "queued_at"],
    "ix_jobs_status_created_at_id": ["status", "created_at", "id"],
    "ix_jobs_status_rung_at_queued_at": ["status", "rung_at", "queued_at"],
    "ix_jobs_owner_status_created_at_id": ["owner", "status", "created_at", "id"],
    "ix_jobs_dataset_ipc_protocol_hash_accuracy": ["dataset", "ipc", "protocol_hash", "accuracy"],
    "ix_jobs_finished_at": ["finished_at"],
}
PARTIAL_JOB_INDEXES = {
    "expires_at": "purged_at IS NULL",
    "deleted_at": "deleted_at IS NOT NULL",
    "parent_job_id": "parent_job_id IS NOT NULL",
}
NEW_TABLES = (
    "api_keys", "owners", "audit_log", "idempotency_records", "webhook_deliveries", "webhooks", "datasets", "workers",
    "paused_queues",
)  # fmt: skip


def upgrade() -> None:
    for column in job_columns():
        op.add_column("jobs", column)
    for name, columns in JOB_INDEXES.items():
        op.create_index(name, "jobs", columns)
    for column, condition in PARTIAL_JOB_INDEXES.items():
        where = sa.text(condition)
        op.create_index(f"ix_jobs_{column}", "jobs", [column], sqlite_where=where, postgresql_where=where)
    for name in ("ix_jobs_status_run_after", "ix_jobs_status_lease_until"):
        op.drop_index(name, "jobs")
    op.create_index("ix_job_events_job_id_type_seq", "job_events", ["job_id", "type", "seq"])
    _fill()
    _create_access()
    _create_webhooks()
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("sha256", sa.String(64)),
        sa.Column("report", sa.JSON),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("smallest_class", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_until", Moment),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("completed_at", Moment),
        sa.Column("finished_at", Moment),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
    )
    op.create_index("uq_datasets_owner_name", "datasets", ["owner", "name"], unique=True)
    op.create_index("ix_datasets_status_lease_until", "datasets", ["status", "lease_until"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("job_id", sa.String(40)),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("seen_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "paused_queues",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("paused_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_paused_queues"),
    )


def downgrade() -> None:
    for table in NEW_TABLES:
        op.drop_table(table)
    op.drop_index("ix_job_events_job_id_type_seq", "job_events")
    for column in ("run_after", "lease_until"):
        op.create_index(f"ix_jobs_status_{column}", "jobs", ["status", column])
    for name in (*JOB_INDEXES, *(f"ix_jobs_{column}" for column in PARTIAL_JOB_INDEXES)):
        op.drop_index(name, "jobs")
    for column in job_columns():
        op.drop_column("jobs", column.name)


def _fill() -> None:
    """What older jobs know of themselves in their JSON alone."""
    jobs = sa.table(
        "jobs",
        *(sa.column(name, sa.JSON) for name in ("spec", "result_summary")),
        sa.column("ipc", sa.Integer),
        sa.column("accuracy", sa.Double),
        sa.column("protocol_hash", sa.String),
    )
    summary = jobs.c.result_summary
    values = {
        "ipc": jobs.c.spec["ipc"].as_integer(),
        "accuracy": summary["accuracy"]["mean"].as_float(),
        "protocol_hash": summary["protocol_hash"].as_string(),
    }
    op.execute(jobs.update().values(values))


def _create_access() -> None:
    op.create_table(
        "owners",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("max_queued", sa.Integer),
        sa.Column("max_running", sa.Integer),
        sa.Column("run_seconds_per_day", sa.Integer),
        sa.Column("storage_bytes", sa.BigInteger),
        sa.Column("retention_days", sa.Integer),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_owners"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("shown", sa.String(16), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment),
        sa.Column("revoked_at", Moment),
        sa.Column("last_used_at", Moment),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["owner"], ["owners.name"], name="fk_api_keys_owner"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_index("ix_api_keys_owner", "api_keys", ["owner"])
    op.create_index("ix_api_keys_created_at_id", "api_keys", ["created_at", "id"])
    op.create_table(
        "audit_log",
        sa.Column("id", Counter, autoincrement=True, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(40)),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("resource", sa.String(255)),
        sa.Column("request_id", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.create_table(
        "idempotency_records",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("route", sa.String(128), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("owner", "route", "key", name="pk_idempotency_records"),
    )
    op.create_index("ix_idempotency_records_created_at", "idempotency_records", ["created_at"])


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("events", sa.JSON, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("previous_until", Moment),
        sa.Column("disabled_at", Moment),
        sa.Column("disabled_reason", sa.String(200)),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_owner", "webhooks", ["owner"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("webhook_id", sa.String(40), nullable=False),
        sa.Column("message_id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("response_status", sa.Integer),
        sa.Column("error", sa.String(200)),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("finished_at", Moment),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_webhook_deliveries_webhook_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_webhook_deliveries_status_due_at", "webhook_deliveries", ["status", "due_at"])
    op.create_index(
        "ix_webhook_deliveries_webhook_id_created_at_id", "webhook_deliveries", ["webhook_id", "created_at", "id"]
    )
