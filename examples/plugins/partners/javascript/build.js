// Builds the component of a JavaScript plugin: node build.js SOURCE WIT-FOLDER WORLD OUTPUT
//
// The API of componentize-js, since the command line of jco 1.35 fails with this engine. With all features off the
// component imports nothing of WASI.

import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [sourcePath, witPath, worldName, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName,
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
await writeFile(output, component);
