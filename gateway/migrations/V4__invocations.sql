-- Runs of functions as Jobs: intent, and the record of what became of it.
SET ROLE ef_owner;

CREATE TABLE invocations (
    id uuid CONSTRAINT invocations_pkey PRIMARY KEY,
    tenant_id text NOT NULL CONSTRAINT invocations_tenant_id_fkey REFERENCES tenants (id),
    function_id uuid NOT NULL CONSTRAINT invocations_function_id_fkey REFERENCES functions (id),
    function_name text NOT NULL COLLATE "C",
    -- What was asked for; the input apart, since lists do not read it.
    spec jsonb NOT NULL,
    input text,
    retry_of uuid,
    actor text NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT now(),
    cancel_requested_at timestamptz,
    -- 1, and 2 once its end was asked for. The cluster is known to hold synced_generation.
    generation bigint NOT NULL DEFAULT 1,
    synced_generation bigint NOT NULL DEFAULT 0,
    object_uid text,
    -- When the projector may try next, and how often it tried in vain.
    carries integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    -- The record, once it is over: what the cluster said of it last. Its object is to go then.
    phase text,
    reason text,
    message text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    exit_code integer,
    admitted_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    result text,
    log_tail text,
    -- Seen to be gone from the cluster.
    purged_at timestamptz,
    CONSTRAINT invocations_spec_object CHECK (jsonb_typeof(spec) = 'object'),
    CONSTRAINT invocations_generation_known CHECK (generation IN (1, 2)),
    CONSTRAINT invocations_synced_generation_known CHECK (synced_generation BETWEEN 0 AND generation),
    CONSTRAINT invocations_cancel_is_a_generation CHECK ((cancel_requested_at IS NULL) = (generation = 1)),
    CONSTRAINT invocations_record_whole CHECK ((phase IS NULL) = (finished_at IS NULL)),
    CONSTRAINT invocations_phase_final CHECK (phase IN ('Succeeded', 'Failed', 'Cancelled')),
    CONSTRAINT invocations_purged_after_record CHECK (purged_at IS NULL OR finished_at IS NOT NULL)
);
CREATE INDEX invocations_of_function_idx ON invocations (tenant_id, function_id, id);
CREATE INDEX invocations_finished_idx ON invocations (tenant_id, finished_at) WHERE purged_at IS NOT NULL;
-- Those that are under way, which each tenant may have only so many of.
CREATE INDEX invocations_unfinished_idx ON invocations (tenant_id) WHERE finished_at IS NULL;
-- What the projector has to do: tell the cluster, or take out of it what is over.
CREATE INDEX invocations_pending_idx ON invocations (next_attempt_at)
    WHERE purged_at IS NULL AND (synced_generation < generation OR finished_at IS NOT NULL);

ALTER TABLE invocations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY invocations_app ON invocations TO ef_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY invocations_projector ON invocations TO ef_projector USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON invocations TO ef_app;
GRANT UPDATE (cancel_requested_at, generation, carries, next_attempt_at) ON invocations TO ef_app;
GRANT SELECT, UPDATE, DELETE ON invocations TO ef_projector;

RESET ROLE;
