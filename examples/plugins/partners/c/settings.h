// The settings of the policy "partners": JSON in, checked values or all mistakes with JSON Pointers out. It knows nothing
// of the bindings, so settings_test.c runs anywhere.

#ifndef SETTINGS_H
#define SETTINGS_H

#include <stddef.h>
#include <stdint.h>

#include "json.h"

enum { DEFAULT_LIMIT = 100 };

typedef struct {
  json_text at;      // JSON Pointer (RFC 6901); on the heap
  const char *text;  // static
} settings_mistake;

typedef struct {
  json_value json;           // what the domains point into
  const json_value *quiet;   // an array of strings, or NULL
  uint32_t limit;
  settings_mistake *mistakes;  // those of known keys first; the settings count only if there is none
  size_t mistake_count;
} settings;

// `settings_free` must be called, whether there are mistakes or not.
void settings_read(const char *config, size_t length, settings *result);

void settings_free(settings *read);

#endif
