// Tests of settings.js: `node --test` in this folder.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DEFAULT_LIMIT, Mistakes, readSettings } from "./settings.js";

function places(config) {
  try {
    readSettings(config);
  } catch (error) {
    assert.ok(error instanceof Mistakes, error);
    return error.found.map((mistake) => mistake.at);
  }
  return assert.fail(`${config} has no mistake`);
}

test("settings are read and may be left out", () => {
  const all = readSettings('{"quiet": ["example.net"], "limit": 3.0}');
  assert.deepEqual(all, { quiet: ["example.net"], limit: 3 });
  assert.deepEqual(readSettings("{}"), { quiet: [], limit: DEFAULT_LIMIT });
});

test("every mistake has its place", () => {
  const config = '{"limit": 0, "z": 1, "a/~": 2, "quiet": ["example.net", 7]}';
  assert.deepEqual(places(config), ["/quiet/1", "/limit", "/a~1~0", "/z"]);
  assert.deepEqual(places('{"quiet": null, "limit": 1.5}'), ["/quiet", "/limit"]);
  assert.deepEqual(places('{"limit": true}'), ["/limit"]);
  assert.deepEqual(places('{"limit": 4294967296}'), ["/limit"]);
});

test("what is no object is a mistake of the whole", () => {
  assert.deepEqual(places("[]"), [""]);
  assert.deepEqual(places("{"), [""]);
});
