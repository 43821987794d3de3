// Reads and checks the settings of the policy "partners".

#include "settings.h"

#include <stdlib.h>
#include <string.h>

static void add_mistake(settings *to, json_text at, const char *text) {
  size_t size = (to->mistake_count + 1) * sizeof *to->mistakes;
  settings_mistake *mistakes = realloc(to->mistakes, size);
  if (mistakes == NULL) __builtin_trap();
  mistakes[to->mistake_count++] = (settings_mistake){.at = at, .text = text};
  to->mistakes = mistakes;
}

static json_text copied(const char *text) {
  json_text copy = {.bytes = allocate(strlen(text)), .length = strlen(text)};
  memcpy(copy.bytes, text, copy.length);
  return copy;
}

// "/quiet/" and the decimal digits of the place.
static json_text quiet_pointer(size_t place) {
  char digits[20];
  size_t count = 0;
  do digits[count++] = (char)('0' + place % 10);
  while ((place /= 10) > 0);
  static const char prefix[] = "/quiet/";
  size_t length = sizeof prefix - 1;
  json_text pointer = {.bytes = allocate(length + count), .length = length + count};
  memcpy(pointer.bytes, prefix, length);
  while (count > 0) pointer.bytes[length++] = digits[--count];
  return pointer;
}

// RFC 6901 section 3: "~" is "~0", "/" is "~1".
static json_text key_pointer(json_text key) {
  json_text pointer = {.bytes = allocate(1 + 2 * key.length), .length = 0};
  pointer.bytes[pointer.length++] = '/';
  for (size_t index = 0; index < key.length; index++) {
    char octet = key.bytes[index];
    bool escaped = octet == '~' || octet == '/';
    pointer.bytes[pointer.length++] = escaped ? '~' : octet;
    if (escaped) pointer.bytes[pointer.length++] = octet == '~' ? '0' : '1';
  }
  return pointer;
}

static void read_quiet(settings *to) {
  const json_value *domains = json_member(&to->json, "quiet");
  if (domains == NULL) return;
  if (domains->kind != JSON_ARRAY) {
    add_mistake(to, copied("/quiet"), "must be a list of domains");
    return;
  }
  for (size_t place = 0; place < domains->count; place++) {
    if (domains->items[place].kind != JSON_STRING) add_mistake(to, quiet_pointer(place), "must be a domain");
  }
  to->quiet = domains;
}

// JSON has one kind of numbers: 3.0 is an integer, as in JSON Schema.
static void read_limit(settings *to) {
  const json_value *limit = json_member(&to->json, "limit");
  if (limit == NULL) return;
  bool in_range = limit->kind == JSON_NUMBER && limit->number >= 1 && limit->number <= UINT32_MAX;
  if (in_range && (double)(uint32_t)limit->number == limit->number) {
    to->limit = (uint32_t)limit->number;
  } else {
    add_mistake(to, copied("/limit"), "must be a positive integer");
  }
}

static int compare_places(const void *left, const void *right) {
  const json_text *a = &((const settings_mistake *)left)->at;
  const json_text *b = &((const settings_mistake *)right)->at;
  size_t shorter = a->length < b->length ? a->length : b->length;
  int order = memcmp(a->bytes, b->bytes, shorter);
  return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

static void find_unknown_keys(settings *to) {
  size_t known = to->mistake_count;
  for (size_t index = 0; index < to->json.count; index++) {
    json_text key = to->json.keys[index];
    if (!json_text_is(key, "quiet") && !json_text_is(key, "limit")) add_mistake(to, key_pointer(key), "unknown key");
  }
  if (to->mistake_count > known) {
    qsort(to->mistakes + known, to->mistake_count - known, sizeof *to->mistakes, compare_places);
  }
}

void settings_read(const char *config, size_t length, settings *result) {
  *result = (settings){.limit = DEFAULT_LIMIT};
  if (!json_parse(config, length, &result->json)) {
    add_mistake(result, copied(""), "not JSON");
  } else if (result->json.kind != JSON_OBJECT) {
    add_mistake(result, copied(""), "must be an object");
  } else {
    read_quiet(result);
    read_limit(result);
    find_unknown_keys(result);
  }
}

void settings_free(settings *read) {
  for (size_t index = 0; index < read->mistake_count; index++) free(read->mistakes[index].at.bytes);
  free(read->mistakes);
  json_free(&read->json);
  *read = (settings){.limit = DEFAULT_LIMIT};
}
