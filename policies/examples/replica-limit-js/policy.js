// The built-in policy `replica-limit` in JavaScript: the same manifest, settings and verdicts, shown by its fixtures.

let settings = {};

const schema = {
  type: "object",
  additionalProperties: false,
  properties: {
    max: { type: ["integer", "null"], minimum: 0, maximum: 4294967295 },
    tiers: { type: "object", additionalProperties: { type: "integer", minimum: 0, maximum: 4294967295 } },
  },
};

export function describe() {
  return {
    name: "replica-limit",
    version: "0.1.0",
    summary: "Caps the replicas of one function, by tier.",
    capabilities: [],
    settingsSchema: JSON.stringify(schema),
    failureMode: "closed",
  };
}

// Problems would be thrown as a list; the schema finds all there are.
export function configure(text) {
  settings = JSON.parse(text);
}

export function admit(view) {
  if (view.operation !== "create" && view.operation !== "update") {
    return { tag: "allow" };
  }
  const { tier, limits } = view.tenant;
  const cap = settings.tiers?.[tier] ?? settings.max ?? limits.maxReplicasPerFunction;
  const spec = JSON.parse(view.object).spec;
  const objections = [];
  const within = (field, replicas) => {
    if (replicas > cap) {
      objections.push(`${field} is ${replicas}, tier ${tier} allows at most ${cap}`);
    }
  };
  within("replicas", spec.replicas ?? 1);
  if (spec.scaling) {
    within("scaling.max", spec.scaling.max ?? 0);
  }
  if (objections.length === 0) {
    return { tag: "allow" };
  }
  return { tag: "deny", val: { status: 403, code: "too-many-replicas", message: objections.join("; ") } };
}
