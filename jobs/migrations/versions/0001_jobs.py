"""Jobs and their events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("dataset", sa.String(255), nullable=False),
        sa.Column("method", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("resolved_spec", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("status_reason", sa.String(64)),
        sa.Column("phase", sa.String(64)),
        sa.Column("progress", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("result_summary", sa.JSON),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(255)),
        sa.Column("lease_until", Moment),
        sa.Column("run_after", Moment, nullable=False),
        sa.Column("rung_at", Moment),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("checkpoint_step", sa.Integer),
        sa.Column("loss_step", sa.Integer),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("queued_at", Moment, nullable=False),
        sa.Column("started_at", Moment),
        sa.Column("cancelling_at", Moment),
        sa.Column("finished_at", Moment),
        sa.Column("parent_job_id", sa.String(40)),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("event_seq", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["parent_job_id"], ["jobs.id"], name="fk_jobs_parent_job_id"),
    )
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_status_run_after", "jobs", ["status", "run_after"])
    op.create_index("ix_jobs_status_lease_until", "jobs", ["status", "lease_until"])
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("seq", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_job_events"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_events_job_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("job_events")
    op.drop_table("jobs")
