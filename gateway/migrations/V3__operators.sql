-- Operators read the audit entries of all tenants, and give a tenant that was made without an owner its owner.
SET ROLE ef_owner;

GRANT SELECT ON audit_log TO ef_projector;
GRANT UPDATE (issuer, claim) ON tenants TO ef_projector;

RESET ROLE;
