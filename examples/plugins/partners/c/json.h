// A parser of JSON (RFC 8259), as much as settings need. It knows nothing of the bindings.

#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

// UTF-8 without a final NUL; it may contain NUL.
typedef struct {
  char *bytes;
  size_t length;
} json_text;

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

typedef struct json_value {
  enum json_kind kind;
  double number;             // of a number
  json_text text;            // of a string
  json_text *keys;           // of an object, as many as items
  struct json_value *items;  // of an array or an object
  size_t count;              // of the items
} json_value;

// False if the text, which is valid UTF-8, is not JSON, or is nested more than 64 levels deep. If true, `json_free` must
// be called.
bool json_parse(const char *bytes, size_t length, json_value *result);

void json_free(json_value *value);

// The member with this key, the last one if it is repeated; NULL if there is none.
const json_value *json_member(const json_value *object, const char *key);

bool json_text_is(json_text text, const char *expected);

// Memory, or a trap if there is none: a plugin cannot go on without, and a trap drops what the call has changed.
void *allocate(size_t size);

#endif
