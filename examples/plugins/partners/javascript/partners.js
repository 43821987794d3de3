// The policy "partners" in JavaScript: it refuses, groups and marks mail. ../README.md describes the policy.

import * as calls from "pintle:plugin/calls@0.1.0";
import * as gateway from "pintle:plugin/gateway@0.1.0";
import * as log from "pintle:plugin/log@0.1.0";
import * as message from "pintle:plugin/message@0.1.0";
import * as transaction from "pintle:plugin/transaction@0.1.0";

import { DEFAULT_LIMIT, Mistakes, readSettings } from "./settings.js";

// What `configure` computes. It runs on every new instance, so this is the one global that may be kept.
let quiet = new Set();
let limit = DEFAULT_LIMIT;

/**
 * Logs an exception that nothing caught, with its stack, then lets it end the call. The component has no stderr, so
 * without this the gateway would report a trap and no cause.
 */
function logsExceptions(call) {
  return (...values) => {
    try {
      return call(...values);
    } catch (error) {
      log.write("error", described(error), []);
      throw error;
    }
  };
}

/** The exception and its calls. The gateway's refusal of a call is an Error whose `payload` is the host-error. */
function described(error) {
  const refused = error?.payload !== undefined;
  const what = refused ? `the gateway refused a call: ${JSON.stringify(error.payload)}` : `${error}`;
  return `${what}\n${error?.stack ?? ""}`;
}

export const plugin = {
  describe: logsExceptions(() => ({
    id: "pintle.partners",
    version: "0.1.0",
    summary: "Refuses, groups and marks mail: one policy in five languages",
    configSchema: undefined,
    wants: ["edit-headers"],
    more: [["language", "JavaScript"]],
  })),

  // What is thrown here is the error of the result. The engine makes an empty list of anything that is not a list of
  // config-errors, so that a bug would be reported as no mistake at all.
  configure(config) {
    try {
      const settings = readSettings(config);
      quiet = new Set(gateway.toAscii(settings.quiet));
      limit = settings.limit;
      calls.onlyClients("on-message", "strangers");
    } catch (error) {
      throw error instanceof Mistakes ? error.found : [{ at: "", text: described(error) }];
    }
  },
};

export const onRcpt = {
  handle: logsExceptions((rcpt) => {
    if (rcpt.address.local === "blocked") {
      return { tag: "reject", val: reply(550, "5.7.1", "No mail to blocked") };
    }
    if (rcpt.address.local === "busy") {
      return { tag: "defer", val: reply(451, "4.7.1", "busy takes mail later") };
    }
    if (quiet.has(rcpt.address.domain)) {
      transaction.setGroup(rcpt.id, "quiet");
    }
    return { tag: "next" };
  }),
};

export const onMessage = {
  handle: logsExceptions(() => {
    if (carriesTestVirus()) {
      return { tag: "reject", val: reply(554, "5.7.1", "the message carries a test virus") };
    }
    const recipients = transaction.recipients();
    const subjects = message.headersShown(["Subject"]).map((field) => field.value.toLowerCase());
    if (subjects.some((subject) => subject.includes("offer"))) {
      judgeOffer(recipients);
    }
    if (subjects.some((subject) => subject.includes("hold me"))) {
      transaction.quarantine([], "policy", "the subject asks for it");
    }
    reportCount(recipients.length);
    return { tag: "next" };
  }),
};

function carriesTestVirus() {
  const needle = Uint8Array.from("virus-test-string", (letter) => letter.charCodeAt(0));
  return message.parts().some((part) => message.findInPart(part.index, needle, false, 1).length > 0);
}

function judgeOffer(recipients) {
  transaction.setScore("offer", 1.5);
  const picky = recipients.filter((rcpt) => rcpt.address.local === "picky").map((rcpt) => rcpt.id);
  if (picky.length > 0) {
    transaction.refuse(picky, reply(550, "5.7.1", "picky takes no mail of this kind"));
  }
}

function reportCount(count) {
  transaction.setFact("seen", `${count}`);
  if (count > limit) {
    const fields = [["recipients", `${count}`], ["limit", `${limit}`]];
    log.write("warn", "more recipients than the limit", fields);
  }
  try {
    const header = { name: "X-Partners", value: `grüße ${count}` };
    message.editHeaders([{ tag: "add", val: [{ tag: "bottom" }, header] }]);
  } catch (error) {
    // The operator need not grant edit-headers; the rest of the policy works without it.
    if (error.payload?.tag !== "denied") {
      throw error;
    }
  }
}

function reply(code, enhanced, text) {
  return { code, enhanced, text };
}
