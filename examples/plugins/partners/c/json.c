// A recursive-descent parser of JSON (RFC 8259).

#include "json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

// What is left to parse. A NUL follows the text, so that reading one octet at the end is safe.
typedef struct {
  const char *next;
  const char *end;
  int depth;
} json_input;

static bool parse_value(json_input *input, json_value *value);

void *allocate(size_t size) {
  void *memory = malloc(size > 0 ? size : 1);
  if (memory == NULL) __builtin_trap();
  return memory;
}

// Makes room for one item more. Capacities are powers of two, so the work is linear.
static void *grown(void *items, size_t count, size_t size) {
  bool full = (count & (count - 1)) == 0;
  if (!full) return items;
  void *memory = realloc(items, (count == 0 ? 1 : count * 2) * size);
  if (memory == NULL) __builtin_trap();
  return memory;
}

static void skip_space(json_input *input) {
  while (input->next < input->end && memchr(" \t\r\n", *input->next, 4) != NULL) input->next++;
}

static bool take(json_input *input, const char *expected) {
  size_t length = strlen(expected);
  if ((size_t)(input->end - input->next) < length || memcmp(input->next, expected, length) != 0) return false;
  input->next += length;
  return true;
}

static bool is_digit(char octet) { return octet >= '0' && octet <= '9'; }

static bool take_digits(json_input *input) {
  const char *start = input->next;
  while (is_digit(*input->next)) input->next++;
  return input->next > start;
}

static bool parse_number(json_input *input, json_value *value) {
  const char *start = input->next;
  take(input, "-");
  if (!take(input, "0") && !take_digits(input)) return false;
  if (take(input, ".") && !take_digits(input)) return false;
  if (take(input, "e") || take(input, "E")) {
    if (!take(input, "+")) take(input, "-");
    if (!take_digits(input)) return false;
  }
  value->kind = JSON_NUMBER;
  value->number = strtod(start, NULL);
  return true;
}

static bool take_hex(json_input *input, uint32_t *unit) {
  *unit = 0;
  for (int place = 0; place < 4; place++) {
    char octet = *input->next;
    char letter = octet | 0x20;
    if (is_digit(octet)) {
      *unit = *unit * 16 + (uint32_t)(octet - '0');
    } else if (letter >= 'a' && letter <= 'f') {
      *unit = *unit * 16 + (uint32_t)(letter - 'a' + 10);
    } else {
      return false;
    }
    input->next++;
  }
  return true;
}

static char *put_utf8(char *to, uint32_t scalar) {
  if (scalar < 0x80) {
    *to++ = (char)scalar;
    return to;
  }
  int following = scalar < 0x800 ? 1 : scalar < 0x10000 ? 2 : 3;
  *to++ = (char)((0xFF00 >> (following + 1)) | (scalar >> (6 * following)));
  while (following-- > 0) *to++ = (char)(0x80 | ((scalar >> (6 * following)) & 0x3F));
  return to;
}

// The rest of \uXXXX, which may be half of a surrogate pair.
static bool take_unicode(json_input *input, char **to) {
  uint32_t scalar;
  if (!take_hex(input, &scalar)) return false;
  if (scalar >= 0xD800 && scalar < 0xDC00) {
    uint32_t low;
    if (!take(input, "\\u") || !take_hex(input, &low) || low < 0xDC00 || low > 0xDFFF) return false;
    scalar = 0x10000 + ((scalar - 0xD800) << 10) + (low - 0xDC00);
  } else if (scalar >= 0xDC00 && scalar <= 0xDFFF) {
    return false;
  }
  *to = put_utf8(*to, scalar);
  return true;
}

static bool take_escape(json_input *input, char **to) {
  static const char letters[] = "\"\\/bfnrt";
  static const char meanings[] = "\"\\/\b\f\n\r\t";
  if (take(input, "u")) return take_unicode(input, to);
  const char *letter = *input->next == '\0' ? NULL : strchr(letters, *input->next);
  if (letter == NULL) return false;
  input->next++;
  *(*to)++ = meanings[letter - letters];
  return true;
}

// The octets of a string up to its closing quote. What is written is never longer than what is read.
static bool take_octets(json_input *input, char **to) {
  while (!take(input, "\"")) {
    if ((unsigned char)*input->next < 0x20) return false;
    if (take(input, "\\")) {
      if (!take_escape(input, to)) return false;
    } else {
      *(*to)++ = *input->next++;
    }
  }
  return true;
}

static bool parse_text(json_input *input, json_text *text) {
  if (!take(input, "\"")) return false;
  const char *quote = input->next;
  while (*quote != '\0' && *quote != '"') quote += quote[0] == '\\' && quote[1] != '\0' ? 2 : 1;
  text->bytes = allocate((size_t)(quote - input->next));
  char *to = text->bytes;
  bool good = take_octets(input, &to);
  text->length = (size_t)(to - text->bytes);
  if (!good) {
    free(text->bytes);
    *text = (json_text){0};
  }
  return good;
}

static bool parse_key(json_input *input, json_value *object) {
  object->keys = grown(object->keys, object->count, sizeof *object->keys);
  if (!parse_text(input, &object->keys[object->count])) return false;
  skip_space(input);
  if (take(input, ":")) return true;
  free(object->keys[object->count].bytes);
  return false;
}

static bool parse_item(json_input *input, json_value *container) {
  skip_space(input);
  if (container->kind == JSON_OBJECT && !parse_key(input, container)) return false;
  container->items = grown(container->items, container->count, sizeof *container->items);
  if (parse_value(input, &container->items[container->count])) {
    container->count++;
    return true;
  }
  if (container->kind == JSON_OBJECT) free(container->keys[container->count].bytes);
  return false;
}

static bool parse_items(json_input *input, json_value *container, const char *close) {
  skip_space(input);
  if (take(input, close)) return true;
  do {
    if (!parse_item(input, container)) return false;
    skip_space(input);
  } while (take(input, ","));
  return take(input, close);
}

static bool parse_container(json_input *input, json_value *value, enum json_kind kind, const char *close) {
  if (input->depth == MAX_DEPTH) return false;
  input->depth++;
  value->kind = kind;
  bool good = parse_items(input, value, close);
  if (!good) json_free(value);
  input->depth--;
  return good;
}

// If it is false, nothing of the value is left to be freed.
static bool parse_value(json_input *input, json_value *value) {
  *value = (json_value){.kind = JSON_NULL};
  skip_space(input);
  if (take(input, "null")) return true;
  value->kind = JSON_BOOL;
  if (take(input, "true") || take(input, "false")) return true;
  if (take(input, "{")) return parse_container(input, value, JSON_OBJECT, "}");
  if (take(input, "[")) return parse_container(input, value, JSON_ARRAY, "]");
  value->kind = JSON_STRING;
  if (*input->next == '"') return parse_text(input, &value->text);
  return parse_number(input, value);
}

bool json_parse(const char *bytes, size_t length, json_value *result) {
  char *copy = allocate(length + 1);
  memcpy(copy, bytes, length);
  copy[length] = '\0';
  json_input input = {.next = copy, .end = copy + length, .depth = 0};
  bool good = parse_value(&input, result);
  if (good) {
    skip_space(&input);
    good = input.next == input.end;
    if (!good) json_free(result);
  }
  free(copy);
  return good;
}

void json_free(json_value *value) {
  for (size_t index = 0; index < value->count; index++) {
    if (value->keys != NULL) free(value->keys[index].bytes);
    json_free(&value->items[index]);
  }
  free(value->keys);
  free(value->items);
  free(value->text.bytes);
  *value = (json_value){.kind = JSON_NULL};
}

const json_value *json_member(const json_value *object, const char *key) {
  for (size_t index = object->count; index-- > 0;) {
    if (json_text_is(object->keys[index], key)) return &object->items[index];
  }
  return NULL;
}

bool json_text_is(json_text text, const char *expected) {
  return text.length == strlen(expected) && memcmp(text.bytes, expected, text.length) == 0;
}
