// `node build.js OUT WIT`: policy.js as a component of the world pure-admission-policy. WASI is replaced by traps, because a
// policy is given none.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { componentize } from "componentize-qjs";

const jsPath = fileURLToPath(new URL("policy.js", import.meta.url));
const { component } = await componentize({
  jsPath,
  jsSource: await readFile(jsPath, "utf8"),
  witPath: process.argv[3],
  world: "pure-admission-policy",
  stubWasi: true,
  sync: true,
  optSize: true,
});
await writeFile(process.argv[2], component);
