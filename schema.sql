-- EventFlow's store: every table, constraint, index, role and row-level policy. This file is the truth; the
-- migrations in gateway/migrations/ lead to it, and a test compares the two.
--
-- Roles. ef_owner owns everything and is used by migrations alone. ef_app is what the gateway works as for callers:
-- it owns nothing, and sees and writes the rows of one tenant, named for one transaction by app.tenant. ef_projector
-- is what the gateway works as when it joins store and cluster: all tenants, but only the tables that needs.
-- The gateway's login must be a member of ef_app (ef_app itself may be given a password and be that login).
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['ef_owner', 'ef_app', 'ef_projector'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- made meanwhile for another database of this server
        END;
    END LOOP;
    -- With inheritance ef_app would always be ef_projector too, and see all tenants.
    IF (SELECT rolinherit FROM pg_roles WHERE rolname = 'ef_app') THEN
        ALTER ROLE ef_app NOINHERIT;
    END IF;
    IF NOT pg_has_role('ef_app', 'ef_projector', 'MEMBER') THEN
        BEGIN
            GRANT ef_projector TO ef_app;
        EXCEPTION WHEN unique_violation OR internal_error THEN
            NULL; -- granted meanwhile
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'ef_owner', 'MEMBER') THEN
        EXECUTE format('GRANT ef_owner TO %I', current_user);
    END IF;
END
$$;

GRANT CREATE, USAGE ON SCHEMA public TO ef_owner;
GRANT USAGE ON SCHEMA public TO ef_app, ef_projector;

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
    tenant_id text NOT NULL CONSTRAINT audit_log_tenant_id_fkey REFERENCES tenants (id),
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

CREATE TABLE idempotency_keys (
    tenant_id text NOT NULL CONSTRAINT idempotency_keys_tenant_id_fkey REFERENCES tenants (id),
    key text NOT NULL,
    body_sha256 bytea NOT NULL,
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
GRANT SELECT, INSERT, UPDATE ON functions TO ef_projector;
GRANT INSERT ON audit_log TO ef_projector;
GRANT SELECT, DELETE ON idempotency_keys TO ef_projector;

RESET ROLE;
