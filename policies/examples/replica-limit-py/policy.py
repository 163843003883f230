"""The built-in policy `replica-limit` in Python: the same manifest, settings and verdicts, shown by its fixtures."""

import json

import wit_world
from wit_world.imports.types import (
    AdmissionVerdict_Allow,
    AdmissionVerdict_Deny,
    Denial,
    FailureMode,
    Manifest,
    Operation,
)

INTEGER = {"type": "integer", "minimum": 0, "maximum": 4294967295}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max": {**INTEGER, "type": ["integer", "null"]},
        "tiers": {"type": "object", "additionalProperties": INTEGER},
    },
}

settings = {}


class WitWorld(wit_world.WitWorld):
    def describe(self):
        return Manifest(
            name="replica-limit",
            version="0.1.0",
            summary="Caps the replicas of one function, by tier.",
            capabilities=[],
            settings_schema=json.dumps(SCHEMA),
            failure_mode=FailureMode.CLOSED,
        )

    # Problems would be raised as a list; the schema finds all there are.
    def configure(self, text):
        settings.update(json.loads(text))

    def admit(self, view):
        if view.operation not in (Operation.CREATE, Operation.UPDATE):
            return AdmissionVerdict_Allow()
        tier, limits = view.tenant.tier, view.tenant.limits
        cap = settings.get("tiers", {}).get(tier)
        if cap is None:
            cap = settings.get("max")
        if cap is None:
            cap = limits.max_replicas_per_function
        spec = json.loads(view.object)["spec"]
        asked = [("replicas", spec.get("replicas", 1))]
        if spec.get("scaling"):
            asked.append(("scaling.max", spec["scaling"].get("max", 0)))
        objections = [
            f"{field} is {replicas}, tier {tier} allows at most {cap}" for field, replicas in asked if replicas > cap
        ]
        if not objections:
            return AdmissionVerdict_Allow()
        return AdmissionVerdict_Deny(Denial(403, "too-many-replicas", "; ".join(objections), None))
