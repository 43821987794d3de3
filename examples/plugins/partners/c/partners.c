// The policy "partners" in C: it refuses, groups and marks mail. ../README.md describes the policy.
//
// bindings/partners.h is what wit-bindgen generates from wit/. Who frees what: the arguments of an exported function and
// the results of an imported one are ours to free; the arguments of an imported function stay ours; what an exported
// function returns is freed by the bindings, so it must be on the heap.

#include <stdlib.h>
#include <string.h>

#include "partners.h"
#include "settings.h"

// What configure computes. It runs on every new instance, so these are the only globals that may be kept.
static partners_list_string_t quiet;  // sorted
static uint32_t limit = DEFAULT_LIMIT;

// A string that is not freed.
static partners_string_t borrowed(const char *text) {
  partners_string_t string;
  partners_string_set(&string, text);
  return string;
}

// A string on the heap.
static partners_string_t owned(const char *text) {
  partners_string_t string;
  partners_string_dup(&string, text);
  return string;
}

static bool equals(partners_string_t string, const char *text) {
  return string.len == strlen(text) && memcmp(string.ptr, text, string.len) == 0;
}

static int compare_strings(const void *left, const void *right) {
  const partners_string_t *a = left;
  const partners_string_t *b = right;
  int order = memcmp(a->ptr, b->ptr, a->len < b->len ? a->len : b->len);
  return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

// Logs a refusal of the gateway that the policy does not expect, and ends the call. All changes of the call are dropped
// then, and the operator's on_fault decides about the mail.
static void trap(pintle_plugin_types_host_error_t *error) {
  static const char *const kinds[] = {
      "denied", "unavailable", "limit", "invalid", "temporary", "timeout", "other",
  };
  bool has_text = error->tag != PINTLE_PLUGIN_TYPES_HOST_ERROR_TIMEOUT;
  partners_tuple2_string_string_t fields[] = {
      {borrowed("error"), borrowed(kinds[error->tag])},
      {borrowed("detail"), has_text ? error->val.other : borrowed("")},
  };
  partners_list_tuple2_string_string_t list = {fields, 2};
  partners_string_t text = borrowed("the gateway refused a call");
  pintle_plugin_log_write(PINTLE_PLUGIN_LOG_LEVEL_ERROR, &text, &list);
  __builtin_trap();
}

// The decimal digits and a NUL.
static const char *decimal(uint32_t number, char digits[static 11]) {
  char *first = digits + 10;
  *first = '\0';
  do *--first = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  return first;
}

static pintle_plugin_types_reply_t reply(uint16_t code, const char *enhanced, const char *text) {
  return (pintle_plugin_types_reply_t){code, {true, owned(enhanced)}, owned(text)};
}

static void reject(pintle_plugin_types_verdict_t *verdict, pintle_plugin_types_reply_t with) {
  verdict->tag = PINTLE_PLUGIN_TYPES_VERDICT_REJECT;
  verdict->val.reject = (pintle_plugin_types_option_reply_t){true, with};
}

static void defer(pintle_plugin_types_verdict_t *verdict, pintle_plugin_types_reply_t with) {
  verdict->tag = PINTLE_PLUGIN_TYPES_VERDICT_DEFER;
  verdict->val.defer = (pintle_plugin_types_option_reply_t){true, with};
}

// plugin

void exports_pintle_plugin_plugin_describe(exports_pintle_plugin_plugin_manifest_t *ret) {
  partners_string_t *wants = allocate(sizeof *wants);
  wants[0] = owned("edit-headers");
  partners_tuple2_string_string_t *more = allocate(sizeof *more);
  more[0] = (partners_tuple2_string_string_t){owned("language"), owned("C")};
  *ret = (exports_pintle_plugin_plugin_manifest_t){
      .id = owned("pintle.partners"),
      .version = owned("0.1.0"),
      .summary = owned("Refuses, groups and marks mail: one policy in five languages"),
      .config_schema = {.is_some = false},
      .wants = {wants, 1},
      .more = {more, 1},
  };
}

static void give_mistake(const char *text, exports_pintle_plugin_plugin_list_config_error_t *err) {
  err->len = 1;
  err->ptr = allocate(sizeof *err->ptr);
  err->ptr[0] = (exports_pintle_plugin_plugin_config_error_t){owned(""), owned(text)};
}

static void give_mistakes(const settings *read, exports_pintle_plugin_plugin_list_config_error_t *err) {
  err->len = read->mistake_count;
  err->ptr = allocate(err->len * sizeof *err->ptr);
  for (size_t index = 0; index < err->len; index++) {
    const settings_mistake *mistake = &read->mistakes[index];
    partners_string_dup_n(&err->ptr[index].at, mistake->at.bytes, mistake->at.length);
    err->ptr[index].text = owned(mistake->text);
  }
}

static void keep_settings(const settings *read) {
  limit = read->limit;
  partners_list_string_t written = {NULL, read->quiet == NULL ? 0 : read->quiet->count};
  written.ptr = allocate(written.len * sizeof *written.ptr);
  for (size_t index = 0; index < written.len; index++) {
    json_text domain = read->quiet->items[index].text;
    written.ptr[index] = (partners_string_t){(uint8_t *)domain.bytes, domain.length};
  }
  partners_list_string_free(&quiet);
  pintle_plugin_gateway_to_ascii(&written, &quiet);
  free(written.ptr);
  qsort(quiet.ptr, quiet.len, sizeof *quiet.ptr, compare_strings);
}

bool exports_pintle_plugin_plugin_configure(partners_string_t *config,
                                            exports_pintle_plugin_plugin_list_config_error_t *err) {
  settings read;
  settings_read((const char *)config->ptr, config->len, &read);
  partners_string_free(config);
  bool good = read.mistake_count == 0;
  if (good) {
    keep_settings(&read);
  } else {
    give_mistakes(&read, err);
  }
  settings_free(&read);
  if (!good) return false;

  partners_string_t hook = borrowed("on-message");
  partners_string_t clients = borrowed("strangers");
  pintle_plugin_types_host_error_t error;
  if (pintle_plugin_calls_only_clients(&hook, &clients, &error)) return true;
  pintle_plugin_types_host_error_free(&error);
  give_mistake("the gateway refuses only-clients", err);
  return false;
}

// on-rcpt

static void group_if_quiet(const pintle_plugin_types_recipient_t *rcpt) {
  if (bsearch(&rcpt->address.domain, quiet.ptr, quiet.len, sizeof *quiet.ptr, compare_strings) == NULL) return;
  partners_string_t group = borrowed("quiet");
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_transaction_set_group(rcpt->id, &group, &error)) trap(&error);
}

void exports_pintle_plugin_on_rcpt_handle(pintle_plugin_types_recipient_t *rcpt, pintle_plugin_types_verdict_t *ret) {
  ret->tag = PINTLE_PLUGIN_TYPES_VERDICT_NEXT;
  if (equals(rcpt->address.local, "blocked")) {
    reject(ret, reply(550, "5.7.1", "No mail to blocked"));
  } else if (equals(rcpt->address.local, "busy")) {
    defer(ret, reply(451, "4.7.1", "busy takes mail later"));
  } else {
    group_if_quiet(rcpt);
  }
  pintle_plugin_types_recipient_free(rcpt);
}

// on-message

static bool part_carries_test_virus(uint32_t index) {
  static const char needle[] = "virus-test-string";
  partners_list_u8_t octets = {(uint8_t *)needle, sizeof needle - 1};
  partners_list_u32_t found;
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_message_find_in_part(index, &octets, false, 1, &found, &error)) trap(&error);
  bool carries = found.len > 0;
  partners_list_u32_free(&found);
  return carries;
}

static bool carries_test_virus(void) {
  pintle_plugin_message_list_part_t parts;
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_message_parts(&parts, &error)) trap(&error);
  bool carries = false;
  for (size_t index = 0; index < parts.len && !carries; index++) {
    carries = part_carries_test_virus(parts.ptr[index].index);
  }
  pintle_plugin_message_list_part_free(&parts);
  return carries;
}

static void lower_ascii(partners_string_t *text) {
  for (size_t index = 0; index < text->len; index++) {
    uint8_t octet = text->ptr[index];
    if (octet >= 'A' && octet <= 'Z') text->ptr[index] = octet | 0x20;
  }
}

// The Subject fields as shown, in lower case.
static pintle_plugin_message_list_field_t lower_case_subjects(void) {
  partners_string_t name = borrowed("Subject");
  partners_list_string_t names = {&name, 1};
  pintle_plugin_message_list_field_t subjects;
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_message_headers_shown(&names, &subjects, &error)) trap(&error);
  for (size_t index = 0; index < subjects.len; index++) lower_ascii(&subjects.ptr[index].value);
  return subjects;
}

static bool any_contains(pintle_plugin_message_list_field_t subjects, const char *text) {
  size_t length = strlen(text);
  for (size_t index = 0; index < subjects.len; index++) {
    partners_string_t value = subjects.ptr[index].value;
    for (size_t start = 0; start + length <= value.len; start++) {
      if (memcmp(value.ptr + start, text, length) == 0) return true;
    }
  }
  return false;
}

static void judge_offer(pintle_plugin_transaction_list_recipient_t recipients) {
  partners_string_t rule = borrowed("offer");
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_transaction_set_score(&rule, 1.5, &error)) trap(&error);

  partners_list_u32_t picky = {allocate(recipients.len * sizeof(uint32_t)), 0};
  for (size_t index = 0; index < recipients.len; index++) {
    const pintle_plugin_types_recipient_t *rcpt = &recipients.ptr[index];
    if (equals(rcpt->address.local, "picky")) picky.ptr[picky.len++] = rcpt->id;
  }
  pintle_plugin_types_reply_t refusal = reply(550, "5.7.1", "picky takes no mail of this kind");
  if (picky.len > 0 && !pintle_plugin_transaction_refuse(&picky, &refusal, &error)) trap(&error);
  pintle_plugin_types_reply_free(&refusal);
  free(picky.ptr);
}

static void hold(void) {
  partners_list_u32_t all = {NULL, 0};
  partners_string_t name = borrowed("policy");
  partners_string_t reason = borrowed("the subject asks for it");
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_transaction_quarantine(&all, &name, &reason, &error)) trap(&error);
}

static void warn_of_many(const char *count) {
  char digits[11];
  partners_tuple2_string_string_t fields[] = {
      {borrowed("recipients"), borrowed(count)},
      {borrowed("limit"), borrowed(decimal(limit, digits))},
  };
  partners_list_tuple2_string_string_t list = {fields, 2};
  partners_string_t text = borrowed("more recipients than the limit");
  pintle_plugin_log_write(PINTLE_PLUGIN_LOG_LEVEL_WARN, &text, &list);
}

static void add_header(const char *count) {
  char value[sizeof "grüße " + 10] = "grüße ";
  strcat(value, count);
  pintle_plugin_message_header_edit_t edit = {.tag = PINTLE_PLUGIN_MESSAGE_HEADER_EDIT_ADD};
  edit.val.add.f0.tag = PINTLE_PLUGIN_MESSAGE_POSITION_BOTTOM;
  edit.val.add.f1 = (pintle_plugin_types_header_t){borrowed("X-Partners"), borrowed(value)};
  pintle_plugin_message_list_header_edit_t edits = {&edit, 1};
  pintle_plugin_types_host_error_t error;
  if (pintle_plugin_message_edit_headers(&edits, &error)) return;
  // The operator need not grant edit-headers; the rest of the policy works without it.
  if (error.tag != PINTLE_PLUGIN_TYPES_HOST_ERROR_DENIED) trap(&error);
  pintle_plugin_types_host_error_free(&error);
}

static void report_count(uint32_t number) {
  char digits[11];
  const char *count = decimal(number, digits);
  partners_string_t key = borrowed("seen");
  partners_string_t value = borrowed(count);
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_transaction_set_fact(&key, &value, &error)) trap(&error);
  if (number > limit) warn_of_many(count);
  add_header(count);
}

void exports_pintle_plugin_on_message_handle(pintle_plugin_types_verdict_t *ret) {
  if (carries_test_virus()) {
    reject(ret, reply(554, "5.7.1", "the message carries a test virus"));
    return;
  }
  pintle_plugin_transaction_list_recipient_t recipients;
  pintle_plugin_types_host_error_t error;
  if (!pintle_plugin_transaction_recipients(&recipients, &error)) trap(&error);
  pintle_plugin_message_list_field_t subjects = lower_case_subjects();

  if (any_contains(subjects, "offer")) judge_offer(recipients);
  if (any_contains(subjects, "hold me")) hold();
  report_count((uint32_t)recipients.len);

  pintle_plugin_message_list_field_free(&subjects);
  pintle_plugin_transaction_list_recipient_free(&recipients);
  ret->tag = PINTLE_PLUGIN_TYPES_VERDICT_NEXT;
}
