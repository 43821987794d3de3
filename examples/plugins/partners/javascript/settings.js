// The settings of the policy "partners": JSON in, checked values or all mistakes with JSON Pointers out.
//
// It knows nothing of the contract's modules, so `node --test` runs its tests anywhere.

export const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 2 ** 32 - 1;

/** All mistakes, each with `at`, a JSON Pointer (RFC 6901), and `text`; those of known keys first. */
export class Mistakes {
  constructor(found) {
    this.found = found;
  }
}

/** The quiet domains as written, and the limit. Throws Mistakes. */
export function readSettings(config) {
  const settings = parsed(config);
  if (settings === null || typeof settings !== "object" || Array.isArray(settings)) {
    throw new Mistakes([{ at: "", text: "must be an object" }]);
  }
  const { quiet = [], limit = DEFAULT_LIMIT } = settings;
  const mistakes = quietMistakes(quiet);
  if (!isPositiveInteger(limit)) {
    mistakes.push({ at: "/limit", text: "must be a positive integer" });
  }
  mistakes.push(...unknownKeys(settings));
  if (mistakes.length > 0) {
    throw new Mistakes(mistakes);
  }
  return { quiet, limit };
}

function parsed(config) {
  try {
    return JSON.parse(config);
  } catch (error) {
    throw new Mistakes([{ at: "", text: `not JSON: ${error.message}` }]);
  }
}

function quietMistakes(domains) {
  if (!Array.isArray(domains)) {
    return [{ at: "/quiet", text: "must be a list of domains" }];
  }
  return domains.flatMap((domain, place) =>
    typeof domain === "string" ? [] : [{ at: `/quiet/${place}`, text: "must be a domain" }],
  );
}

function isPositiveInteger(value) {
  return Number.isInteger(value) && value >= 1 && value <= MAX_LIMIT;
}

function unknownKeys(settings) {
  const unknown = Object.keys(settings).filter((key) => key !== "quiet" && key !== "limit");
  // RFC 6901 section 3.
  const escaped = unknown.sort().map((key) => key.replaceAll("~", "~0").replaceAll("/", "~1"));
  return escaped.map((key) => ({ at: `/${key}`, text: "unknown key" }));
}
