// Tests of settings.c and json.c, on the machine's own architecture: `python3 ../build.py --test c`.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

static int failures = 0;

// The places of the mistakes, each followed by a space.
static void expect(const char *config, const char *places) {
  settings read;
  settings_read(config, strlen(config), &read);
  char found[256] = "";
  for (size_t index = 0; index < read.mistake_count; index++) {
    json_text at = read.mistakes[index].at;
    snprintf(found + strlen(found), sizeof found - strlen(found), "%.*s ", (int)at.length, at.bytes);
  }
  settings_free(&read);
  if (strcmp(found, places) != 0) {
    printf("%s: mistakes at \"%s\", expected \"%s\"\n", config, found, places);
    failures++;
  }
}

static void check(bool holds, const char *what) {
  if (!holds) {
    printf("does not hold: %s\n", what);
    failures++;
  }
}

static void settings_are_read_and_may_be_left_out(void) {
  settings read;
  const char *all = "{\"quiet\": [\"example.net\"], \"limit\": 3.0}";
  settings_read(all, strlen(all), &read);
  check(read.mistake_count == 0 && read.limit == 3, "limit 3");
  check(read.quiet->count == 1 && json_text_is(read.quiet->items[0].text, "example.net"), "one domain");
  settings_free(&read);
  settings_read("{}", 2, &read);
  check(read.mistake_count == 0 && read.limit == DEFAULT_LIMIT && read.quiet == NULL, "defaults");
  settings_free(&read);
}

static void every_mistake_has_its_place(void) {
  expect("{\"limit\": 0, \"z\": 1, \"a/~\": 2, \"quiet\": [\"example.net\", 7]}", "/quiet/1 /limit /a~1~0 /z ");
  expect("{\"quiet\": null, \"limit\": 1.5}", "/quiet /limit ");
  expect("{\"limit\": true}", "/limit ");
  expect("{\"limit\": 4294967296}", "/limit ");
  expect("{\"limit\": -1e400}", "/limit ");
  expect("{\"limit\": 0, \"limit\": 1}", "");
  expect("{\"quiet\": [0,1,2,3,4,5,6,7,8,9,10]}",
         "/quiet/0 /quiet/1 /quiet/2 /quiet/3 /quiet/4 /quiet/5 /quiet/6 /quiet/7 /quiet/8 /quiet/9 /quiet/10 ");
}

static void what_is_no_object_is_a_mistake_of_the_whole(void) {
  static const char *const texts[] = {
      "[]", "{", "", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "[1,]", "\"", "\"\\", "\"\\u12", "\"\\ud800\"",
      "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\x\"", "\"\n\"", "01", "1.", "-", "1e", "+1", "nul", "{} {}", "{\"a\":[{\"b\":}]}",
  };
  for (size_t index = 0; index < sizeof texts / sizeof *texts; index++) expect(texts[index], " ");
}

static void strings_are_decoded(void) {
  json_value value;
  const char *text = " \"\\u00fc\\ud83d\\ude00\\n\\\"\\\\\\/ \xc3\xbc\\u20ac\" ";
  check(json_parse(text, strlen(text), &value), "a string");
  check(json_text_is(value.text, "\xc3\xbc\xf0\x9f\x98\x80\n\"\\/ \xc3\xbc\xe2\x82\xac"), "its characters");
  json_free(&value);
  check(json_parse("\"\\u0000\"", 8, &value) && value.text.length == 1, "NUL in a string");
  json_free(&value);
}

static void depth_is_bounded(void) {
  char text[130];
  json_value value;
  memset(text, '[', 65);
  memset(text + 65, ']', 65);
  check(!json_parse(text, 130, &value), "65 levels are refused");
  check(json_parse(text + 1, 128, &value), "64 levels are read");
  json_free(&value);
}

// Every prefix of a text, and the text with each octet replaced: nothing is read or freed that should not be.
static void damaged_texts_do_no_harm(void) {
  static const char text[] = "{\"quiet\": [\"a\\u00e4\", {\"k\": [null, -1.5e+3]}], \"limit\": 7, \"x\": {\"y\": \"\\\\\"}}";
  for (size_t length = 0; length < sizeof text; length++) {
    for (size_t octet = 0; octet < 128; octet++) {
      char damaged[sizeof text];
      memcpy(damaged, text, sizeof text);
      damaged[length] = (char)octet;
      settings read;
      settings_read(damaged, length + 1, &read);
      settings_free(&read);
      settings_read(damaged, sizeof text - 1, &read);
      settings_free(&read);
    }
  }
}

int main(void) {
  settings_are_read_and_may_be_left_out();
  every_mistake_has_its_place();
  what_is_no_object_is_a_mistake_of_the_whole();
  strings_are_decoded();
  depth_is_bounded();
  damaged_texts_do_no_harm();
  printf("%d failures\n", failures);
  return failures > 0;
}
