-- EventFlow's store: every table, constraint, index, role and row-level policy. This file is the truth; the
-- migrations in gateway/migrations/ lead to it, and a test compares the two.
--
-- Roles. ef_owner owns everything and is used by migrations alone. ef_app is what the gateway works as for callers:
-- it owns nothing, and sees and writes the rows of one tenant, named for one transaction by app.tenant. ef_projector
-- is what the gateway works as when it joins store and cluster, and for operators: all tenants, but only the tables
-- that needs. ef_operator is what it works as for operators and for itself: what is no tenant's, and nothing of a
-- tenant's.
-- The gateway's login must be a member of ef_app (ef_app itself may be given a password and be that login).
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['ef_owner', 'ef_app', 'ef_projector', 'ef_operator'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- made meanwhile for another database of this server
        END;
    END LOOP;
    -- With inheritance ef_app would always be the others too, and see all tenants.
    IF (SELECT rolinherit FROM pg_roles WHERE rolname = 'ef_app') THEN
        ALTER ROLE ef_app NOINHERIT;
    END IF;
    FOREACH wanted IN ARRAY ARRAY['ef_projector', 'ef_operator'] LOOP
        BEGIN
            IF NOT pg_has_role('ef_app', wanted, 'MEMBER') THEN
                EXECUTE format('GRANT %I TO ef_app', wanted);
            END IF;
        EXCEPTION WHEN unique_violation OR internal_error THEN
            NULL; -- granted meanwhile
        END;
    END LOOP;
    IF NOT pg_has_role(current_user, 'ef_owner', 'MEMBER') THEN
        EXECUTE format('GRANT ef_owner TO %I', current_user);
    END IF;
END
$$;

GRANT CREATE, USAGE ON SCHEMA public TO ef_owner;
GRANT USAGE ON SCHEMA public TO ef_app, ef_projector, ef_operator;

SET ROLE ef_owner;

-- The tenant that this transaction speaks for. A setting made for one transaction reverts to '', not to NULL: both
-- mean nobody, and a row of nobody does not exist.
CREATE FUNCTION current_tenant() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT NULLIF(current_setting('app.tenant', true), '') $$;

CREATE TABLE tenants (
    id text CONSTRAINT tenants_pkey PRIMARY KEY,
    -- Whose tenant this is, in the words of the identity provider; NULL for one that an operator made and nobody has
    -- signed in to yet.
    issuer text,
    claim text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenants_owner_key UNIQUE (issuer, claim),
    CONSTRAINT tenants_owner_whole CHECK ((issuer IS NULL) = (claim IS NULL)),
    CONSTRAINT tenants_id_label CHECK (id ~ '^[a-z0-9]([a-z0-9-]{0,54}[a-z0-9])?$')
);

CREATE TABLE functions (
    id uuid CONSTRAINT functions_pkey PRIMARY KEY,
    tenant_id text NOT NULL CONSTRAINT functions_tenant_id_fkey REFERENCES tenants (id),
    name text NOT NULL COLLATE "C",
    spec jsonb NOT NULL,
    -- Counts the changes of the spec. The cluster is known to hold synced_generation.
    generation bigint NOT NULL,
    synced_generation bigint NOT NULL DEFAULT 0,
    -- The Function object last written or adopted, and its resourceVersion then.
    object_uid text,
    applied_rv bigint,
    traceparent text,
    -- When the projector may try next, and how often it tried in vain.
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Deleted by its owner; and seen to be gone from the cluster.
    deleted_at timestamptz,
    purged_at timestamptz,
    CONSTRAINT functions_name_label CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?$'),
    CONSTRAINT functions_spec_object CHECK (jsonb_typeof(spec) = 'object'),
    CONSTRAINT functions_generation_positive CHECK (generation >= 1),
    CONSTRAINT functions_synced_generation_known CHECK (synced_generation BETWEEN 0 AND generation),
    CONSTRAINT functions_purged_after_deleted CHECK (purged_at IS NULL OR deleted_at IS NOT NULL)
);
-- A deleted name is free at once.
CREATE UNIQUE INDEX functions_live_name_key ON functions (tenant_id, name) WHERE deleted_at IS NULL;
CREATE INDEX functions_live_created_idx ON functions (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX functions_live_updated_idx ON functions (tenant_id, updated_at, id) WHERE deleted_at IS NULL;
-- What the projector has to do.
CREATE INDEX functions_pending_idx ON functions (next_attempt_at)
    WHERE purged_at IS NULL AND (synced_generation < generation OR deleted_at IS NOT NULL);

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_log_pkey PRIMARY KEY,
    -- NULL: an operator's deed that concerns no tenant, or one that is not known here yet.
    tenant_id text CONSTRAINT audit_log_tenant_id_fkey REFERENCES tenants (id),
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    function_id uuid,
    generation bigint,
    request_id text,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_tenant_idx ON audit_log (tenant_id, id);
CREATE INDEX audit_log_target_idx ON audit_log (target, id) WHERE tenant_id IS NULL;

CREATE TABLE idempotency_keys (
    tenant_id text NOT NULL CONSTRAINT idempotency_keys_tenant_id_fkey REFERENCES tenants (id),
    key text NOT NULL,
    body_sha256 bytea NOT NULL,
    -- The row that was written: a function's or, if that is what the call was for, a run's.
    function_id uuid NOT NULL,
    -- The answer, once known.
    status integer,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key),
    CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_keys_sha256_length CHECK (octet_length(body_sha256) = 32),
    CONSTRAINT idempotency_keys_answer_whole CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_age_idx ON idempotency_keys (created_at);

-- Row-level security, forced on the owner too. Queries filter by tenant as well: this is the second wall.
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE functions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- A tenant is looked up before it is known: by the issuer and the claim of a verified token. One without an owner may
-- be taken by the first caller whose claim is its very id.
CREATE POLICY tenants_app ON tenants TO ef_app
    USING (id = current_tenant()
        OR (issuer = current_setting('app.issuer', true) AND claim = current_setting('app.claim', true))
        OR (issuer IS NULL AND id = current_setting('app.claim', true)))
    WITH CHECK (issuer = current_setting('app.issuer', true) AND claim = current_setting('app.claim', true));
CREATE POLICY functions_app ON functions TO ef_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY audit_log_app ON audit_log TO ef_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY idempotency_keys_app ON idempotency_keys TO ef_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

CREATE POLICY tenants_projector ON tenants TO ef_projector USING (true) WITH CHECK (true);
CREATE POLICY functions_projector ON functions TO ef_projector USING (true) WITH CHECK (true);
CREATE POLICY audit_log_projector ON audit_log TO ef_projector USING (true) WITH CHECK (true);
CREATE POLICY idempotency_keys_projector ON idempotency_keys TO ef_projector USING (true);

GRANT SELECT, INSERT ON tenants TO ef_app;
GRANT UPDATE (issuer, claim) ON tenants TO ef_app;
GRANT SELECT, INSERT, UPDATE ON functions TO ef_app;
GRANT SELECT, INSERT ON audit_log TO ef_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO ef_app;

GRANT SELECT, INSERT ON tenants TO ef_projector;
GRANT UPDATE (issuer, claim) ON tenants TO ef_projector;
GRANT SELECT, INSERT, UPDATE ON functions TO ef_projector;
GRANT SELECT, INSERT ON audit_log TO ef_projector;
GRANT SELECT, DELETE ON idempotency_keys TO ef_projector;

-- Runs of functions as Jobs: intent, and the record of what became of it.
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

-- The policies in force: one row, whose revision grows with every change. Every change takes this row first, so that
-- operators come one after the other.
CREATE TABLE policy_set (
    id boolean CONSTRAINT policy_set_pkey PRIMARY KEY DEFAULT true,
    revision bigint NOT NULL DEFAULT 0,
    CONSTRAINT policy_set_single CHECK (id)
);
INSERT INTO policy_set DEFAULT VALUES;

CREATE TABLE policies (
    name text COLLATE "C" CONSTRAINT policies_pkey PRIMARY KEY,
    -- Counts the changes of it, its revisions and its bindings.
    version bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT policies_name_label CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')
);

-- Modules as uploaded. Nothing of a row but its status ever changes.
CREATE TABLE policy_revisions (
    policy text NOT NULL CONSTRAINT policy_revisions_policy_fkey REFERENCES policies (name) ON DELETE CASCADE,
    number integer NOT NULL,
    digest text NOT NULL,
    module bytea NOT NULL,
    -- What it says about itself, and what its smoke test came to.
    manifest jsonb NOT NULL,
    findings jsonb NOT NULL,
    source text NOT NULL,
    status text NOT NULL DEFAULT 'accepted',
    uploaded_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT policy_revisions_pkey PRIMARY KEY (policy, number),
    CONSTRAINT policy_revisions_digest_key UNIQUE (policy, digest),
    CONSTRAINT policy_revisions_digest_is_of_module CHECK (digest = encode(sha256(module), 'hex')),
    CONSTRAINT policy_revisions_module_size CHECK (octet_length(module) <= 33554432),
    CONSTRAINT policy_revisions_source_known CHECK (source IN ('upload', 'builtin')),
    CONSTRAINT policy_revisions_status_known CHECK (status IN ('accepted', 'rolled-back'))
);

CREATE TABLE policy_groups (
    name text COLLATE "C" CONSTRAINT policy_groups_pkey PRIMARY KEY,
    world text NOT NULL,
    kind text NOT NULL,
    ord integer NOT NULL,
    CONSTRAINT policy_groups_world_key UNIQUE (name, world),
    CONSTRAINT policy_groups_name_label CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT policy_groups_world_known CHECK (world IN ('request', 'admission')),
    CONSTRAINT policy_groups_kind_known CHECK (kind IN ('all', 'any', 'first-match'))
);

CREATE TABLE policy_bindings (
    name text COLLATE "C" CONSTRAINT policy_bindings_pkey PRIMARY KEY,
    policy text NOT NULL CONSTRAINT policy_bindings_policy_fkey REFERENCES policies (name),
    world text NOT NULL,
    scope text NOT NULL,
    scope_name text NOT NULL,
    ord integer NOT NULL,
    failure_mode text NOT NULL,
    group_name text,
    -- What decides; its entry in policy_history is state_id.
    active integer,
    settings jsonb NOT NULL,
    state_id bigint,
    -- What is tried out beside it.
    trial integer,
    trial_mode text,
    trial_settings jsonb,
    trial_basis_points integer,
    trial_tenants text[],
    trial_since timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT policy_bindings_active_fkey FOREIGN KEY (policy, active) REFERENCES policy_revisions (policy, number),
    CONSTRAINT policy_bindings_trial_fkey FOREIGN KEY (policy, trial) REFERENCES policy_revisions (policy, number),
    CONSTRAINT policy_bindings_group_fkey FOREIGN KEY (group_name, world) REFERENCES policy_groups (name, world),
    CONSTRAINT policy_bindings_name_label CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT policy_bindings_world_known CHECK (world IN ('request', 'admission')),
    CONSTRAINT policy_bindings_scope_known CHECK (scope IN ('everyone', 'tier', 'tenant')),
    CONSTRAINT policy_bindings_scope_named CHECK ((scope = 'everyone') = (scope_name = '')),
    CONSTRAINT policy_bindings_failure_known CHECK (failure_mode IN ('closed', 'open')),
    CONSTRAINT policy_bindings_state_whole CHECK ((active IS NULL) = (state_id IS NULL)),
    CONSTRAINT policy_bindings_trial_mode_known CHECK (trial_mode IN ('shadow', 'canary')),
    CONSTRAINT policy_bindings_trial_share CHECK (trial_basis_points BETWEEN 0 AND 10000),
    CONSTRAINT policy_bindings_trial_whole CHECK (num_nulls(trial, trial_mode, trial_settings, trial_basis_points,
        trial_tenants, trial_since) IN (0, 6))
);

-- What a binding ran, oldest first: where a roll-back goes. An undone entry is never gone back to.
CREATE TABLE policy_history (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT policy_history_pkey PRIMARY KEY,
    binding text NOT NULL CONSTRAINT policy_history_binding_fkey REFERENCES policy_bindings (name) ON DELETE CASCADE,
    policy text NOT NULL,
    revision integer NOT NULL,
    settings jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    undone_at timestamptz,
    CONSTRAINT policy_history_revision_fkey FOREIGN KEY (policy, revision) REFERENCES policy_revisions (policy, number)
);
CREATE INDEX policy_history_binding_idx ON policy_history (binding, id);

-- How trials differ from what is enforced, added up over all replicas.
CREATE TABLE policy_trials (
    binding text NOT NULL CONSTRAINT policy_trials_binding_fkey REFERENCES policy_bindings (name) ON DELETE CASCADE,
    digest text NOT NULL,
    decided bigint NOT NULL DEFAULT 0,
    differed bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT policy_trials_pkey PRIMARY KEY (binding, digest)
);

-- The decision log: sampled, redacted, and kept within an age and a number of rows.
CREATE TABLE policy_decisions (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT policy_decisions_pkey PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    request_id text NOT NULL,
    tenant text NOT NULL,
    action text NOT NULL,
    function text,
    set_revision bigint NOT NULL,
    policy text NOT NULL,
    binding text NOT NULL,
    digest text NOT NULL,
    role text NOT NULL,
    verdict text NOT NULL,
    failure text,
    enforced text,
    would_be text,
    time_us bigint NOT NULL,
    log jsonb NOT NULL
);
CREATE INDEX policy_decisions_policy_idx ON policy_decisions (policy, id);
CREATE INDEX policy_decisions_age_idx ON policy_decisions (at);

-- Replicas of the gateway, each seen within the last seconds as long as it lives.
CREATE TABLE gateways (
    id uuid CONSTRAINT gateways_pkey PRIMARY KEY,
    name text NOT NULL,
    set_revision bigint NOT NULL,
    problems jsonb NOT NULL,
    -- The certificate authority of its webhooks, in PEM; its key never leaves the replica.
    webhook_ca text,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- No tenant's, so nothing of them is ef_app's to see: ef_operator alone, and that is all of them or nothing.
ALTER TABLE policy_set ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policies ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policy_revisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policy_groups ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policy_bindings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policy_history ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policy_trials ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE policy_decisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE gateways ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY policy_set_operator ON policy_set TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policies_operator ON policies TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policy_revisions_operator ON policy_revisions TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policy_groups_operator ON policy_groups TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policy_bindings_operator ON policy_bindings TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policy_history_operator ON policy_history TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policy_trials_operator ON policy_trials TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY policy_decisions_operator ON policy_decisions TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY gateways_operator ON gateways TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY audit_log_operator ON audit_log TO ef_operator USING (true) WITH CHECK (tenant_id IS NULL);
GRANT SELECT ON policy_set TO ef_operator;
GRANT UPDATE (revision) ON policy_set TO ef_operator;
GRANT SELECT, INSERT, DELETE ON policies TO ef_operator;
GRANT UPDATE (version, updated_at) ON policies TO ef_operator;
GRANT SELECT, INSERT, DELETE ON policy_revisions TO ef_operator;
GRANT UPDATE (status) ON policy_revisions TO ef_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON policy_groups TO ef_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON policy_bindings TO ef_operator;
GRANT SELECT, INSERT, DELETE ON policy_history TO ef_operator;
GRANT UPDATE (undone_at) ON policy_history TO ef_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON policy_trials TO ef_operator;
GRANT SELECT, INSERT, DELETE ON policy_decisions TO ef_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON gateways TO ef_operator;
GRANT SELECT, INSERT ON audit_log TO ef_operator;

-- What calls came to, added up by hour, function and outcome. Outlives the function; without a key to tenants, because
-- functions that everybody may call are counted whoever made their tenant.
CREATE TABLE usage_calls (
    tenant_id text NOT NULL,
    hour timestamptz NOT NULL,
    function text COLLATE "C" NOT NULL,
    outcome text NOT NULL,
    calls bigint NOT NULL,
    run_us bigint NOT NULL,
    bytes_out bigint NOT NULL,
    CONSTRAINT usage_calls_pkey PRIMARY KEY (tenant_id, hour, function, outcome)
);

-- The newest batch of counts of each run of a gateway: one that is sent again, because its answer was lost, is known.
CREATE TABLE usage_batches (
    writer uuid CONSTRAINT usage_batches_pkey PRIMARY KEY,
    number bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE usage_calls ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_batches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY usage_calls_app ON usage_calls TO ef_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY usage_calls_operator ON usage_calls TO ef_operator USING (true) WITH CHECK (true);
CREATE POLICY usage_batches_operator ON usage_batches TO ef_operator USING (true) WITH CHECK (true);
GRANT SELECT ON usage_calls TO ef_app;
GRANT SELECT, INSERT ON usage_calls TO ef_operator;
GRANT UPDATE (calls, run_us, bytes_out) ON usage_calls TO ef_operator;
GRANT SELECT, INSERT, DELETE ON usage_batches TO ef_operator;
GRANT UPDATE (number, at) ON usage_batches TO ef_operator;

RESET ROLE;
