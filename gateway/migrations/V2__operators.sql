-- Operators change tiers, which are no tenant's: such an entry has no tenant, and no tenant sees it. Operators read
-- the entries of all tenants, and give a tenant that was made without an owner its owner.
SET ROLE ef_owner;

ALTER TABLE audit_log ALTER COLUMN tenant_id DROP NOT NULL;
GRANT SELECT ON audit_log TO ef_projector;
GRANT UPDATE (issuer, claim) ON tenants TO ef_projector;

RESET ROLE;
