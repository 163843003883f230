// `node judge.js COMPONENT < CASES > VERDICTS`: a policy under Node's own WebAssembly engine, by way of jco, which turns a
// component into a core module and JavaScript. CASES is a list of `{settings, request | admission}` with complete views;
// VERDICTS is the list of verdicts in the form of a fixture's `expect`. Each case has an instance of its own.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";
import { transpileBytes } from "@bytecodealliance/jco-transpile";

// Fields of the contract that are 64 bits wide, which JavaScript has another type for.
const WIDE = new Set([
  "content_length",
  "cpu_requests_milli",
  "memory_requests_bytes",
  "cpu_limits_milli",
  "memory_limits_bytes",
  "pods",
  "functions",
]);

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/-/g, "_");
const mapEntries = (object, map) => Object.fromEntries(Object.entries(object).map(map));

// A view as JSON, as the component takes it.
function lower(value, name) {
  if (value === null) return undefined;
  if (Array.isArray(value)) return value.map((element) => lower(element));
  if (typeof value === "object") return mapEntries(value, ([key, inner]) => [camel(key), lower(inner, key)]);
  return WIDE.has(name) ? BigInt(value) : value;
}

// What the component answers, as JSON: variants are `{tag, val}` there and `"tag"` or `{tag: val}` here.
function lift(value) {
  if (value === undefined) return null;
  if (Array.isArray(value)) return value.map(lift);
  if (value === null || typeof value !== "object") return value;
  if ("tag" in value) return value.val === undefined ? snake(value.tag) : { [snake(value.tag)]: lift(value.val) };
  return mapEntries(value, ([key, inner]) => [snake(key), lift(inner)]);
}

function verdict(policy, { settings, request, admission }) {
  try {
    policy.configure(JSON.stringify(settings));
  } catch (error) {
    // A refusal is the error half of the contract's `result`; anything else is a trap.
    if (error instanceof WebAssembly.RuntimeError) throw error;
    return "misconfigured";
  }
  return lift(request ? policy.check(lower(request)) : policy.admit(lower(admission)));
}

const folder = await mkdtemp(join(tmpdir(), "eventflow-second-runtime-"));
try {
  const component = await readFile(process.argv[2]);
  const { files } = await transpileBytes(component, { name: "policy", instantiation: "sync", nodejsCompat: false });
  await writeFile(join(folder, "package.json"), '{"type":"module"}');
  await writeFile(join(folder, "policy.js"), files["policy.js"]);
  const { instantiate } = await import(pathToFileURL(join(folder, "policy.js")));
  const modules = new Map();
  const core = (name) => {
    if (!modules.has(name)) modules.set(name, new WebAssembly.Module(files[name]));
    return modules.get(name);
  };
  const cases = JSON.parse(await text(process.stdin));
  console.log(JSON.stringify(cases.map((one) => verdict(instantiate(core, {}), one))));
} finally {
  await rm(folder, { recursive: true });
}
