"""The policy "partners" in Python: it refuses, groups and marks mail. ../README.md describes the policy.

`wit_world` and `componentize_py_types` are the bindings, which componentize-py generates from wit/.
"""

import functools

import settings

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.plugin import ConfigError, Manifest
from wit_world.imports import calls, gateway, log, message, transaction
from wit_world.imports.message import HeaderEdit_Add, Position_Bottom
from wit_world.imports.types import (
    Header,
    HostError_Denied,
    Recipient,
    Reply,
    Verdict,
    Verdict_Defer,
    Verdict_Next,
    Verdict_Reject,
)

# What `configure` computes. It runs on every new instance, so this is the one global that may be kept.
quiet: frozenset[str] = frozenset()
limit = settings.DEFAULT_LIMIT


def logs_exceptions(function):
    """Logs an exception that nothing caught, then lets it end the call.

    The component has no stderr (`--stub-wasi`), so without this the gateway would report a trap and no cause.
    """

    @functools.wraps(function)
    def logged(*arguments):
        try:
            return function(*arguments)
        except BaseException as error:
            if not is_config_errors(error):
                log.write(log.Level.ERROR, described(error), [])
            raise

    return logged


def is_config_errors(error: BaseException) -> bool:
    """Whether `configure` answers with this exception: the error of its result."""
    return isinstance(error, Err) and isinstance(error.value, list)


def described(error: BaseException) -> str:
    """The exception and its calls. The functions of `traceback` read the sources, and reading a file traps here."""
    lines = [repr(error)]
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{step.tb_lineno} in {code.co_qualname}")
        step = step.tb_next
    return "\n".join(lines)


class Plugin(exports.Plugin):
    @logs_exceptions
    def describe(self) -> Manifest:
        return Manifest(
            id="pintle.partners",
            version="0.1.0",
            summary="Refuses, groups and marks mail: one policy in five languages",
            config_schema=None,
            wants=["edit-headers"],
            more=[("language", "Python")],
        )

    @logs_exceptions
    def configure(self, config: str) -> None:
        global quiet, limit
        try:
            domains, limit = settings.read(config)
        except settings.Mistakes as mistakes:
            raise Err([ConfigError(at, text) for at, text in mistakes.found])
        quiet = frozenset(gateway.to_ascii(domains))
        try:
            calls.only_clients("on-message", "strangers")
        except Err as error:
            raise Err([ConfigError("", f"only-clients: {error.value}")])


class OnRcpt(exports.OnRcpt):
    @logs_exceptions
    def handle(self, rcpt: Recipient) -> Verdict:
        if rcpt.address.local == "blocked":
            return Verdict_Reject(Reply(550, "5.7.1", "No mail to blocked"))
        if rcpt.address.local == "busy":
            return Verdict_Defer(Reply(451, "4.7.1", "busy takes mail later"))
        if rcpt.address.domain in quiet:
            transaction.set_group(rcpt.id, "quiet")
        return Verdict_Next()


class OnMessage(exports.OnMessage):
    @logs_exceptions
    def handle(self) -> Verdict:
        if carries_test_virus():
            return Verdict_Reject(Reply(554, "5.7.1", "the message carries a test virus"))
        recipients = transaction.recipients()
        subjects = [field.value.lower() for field in message.headers_shown(["Subject"])]
        if any("offer" in subject for subject in subjects):
            judge_offer(recipients)
        if any("hold me" in subject for subject in subjects):
            transaction.quarantine([], "policy", "the subject asks for it")
        report_count(len(recipients))
        return Verdict_Next()


def carries_test_virus() -> bool:
    return any(message.find_in_part(part.index, b"virus-test-string", False, 1) for part in message.parts())


def judge_offer(recipients: list[Recipient]) -> None:
    transaction.set_score("offer", 1.5)
    picky = [rcpt.id for rcpt in recipients if rcpt.address.local == "picky"]
    if picky:
        transaction.refuse(picky, Reply(550, "5.7.1", "picky takes no mail of this kind"))


def report_count(count: int) -> None:
    transaction.set_fact("seen", str(count))
    if count > limit:
        fields = [("recipients", str(count)), ("limit", str(limit))]
        log.write(log.Level.WARN, "more recipients than the limit", fields)
    try:
        header = Header("X-Partners", f"grüße {count}")
        message.edit_headers([HeaderEdit_Add((Position_Bottom(), header))])
    except Err as error:
        # The operator need not grant edit-headers; the rest of the policy works without it.
        if not isinstance(error.value, HostError_Denied):
            raise
