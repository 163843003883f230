-- What calls of functions came to, by hour: see schema.sql.
SET ROLE ef_owner;

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
