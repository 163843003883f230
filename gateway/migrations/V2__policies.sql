-- Policies, their revisions and bindings, what they decided, and the replicas that run them: see schema.sql.
DO $$
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ef_operator') THEN
            CREATE ROLE ef_operator NOLOGIN NOINHERIT;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- made meanwhile for another database of this server
    END;
    IF NOT pg_has_role('ef_app', 'ef_operator', 'MEMBER') THEN
        BEGIN
            GRANT ef_operator TO ef_app;
        EXCEPTION WHEN unique_violation OR internal_error THEN
            NULL; -- granted meanwhile
        END;
    END IF;
END
$$;

GRANT USAGE ON SCHEMA public TO ef_operator;

SET ROLE ef_owner;

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

-- What operators, and the platform by itself, do to things that are no tenant's is in the same log as all else, without
-- a tenant: no tenant sees it.
ALTER TABLE audit_log ALTER COLUMN tenant_id DROP NOT NULL;
CREATE INDEX audit_log_target_idx ON audit_log (target, id) WHERE tenant_id IS NULL;

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

RESET ROLE;
