// `node build.js OUT WIT`: policy.js as a component of the world pure-admission-policy. Everything of WASI is left out, because
// a policy is given none.
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { component } = await componentize({
  sourcePath: here("policy.js"),
  witPath: process.argv[3],
  worldName: "pure-admission-policy",
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
await writeFile(process.argv[2], component);
