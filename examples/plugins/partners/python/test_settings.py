"""Tests of settings.py: `python3 -m unittest` in this folder."""

import unittest

import settings


def places(config: str) -> list[str]:
    with unittest.TestCase().assertRaises(settings.Mistakes) as raised:
        settings.read(config)
    return [at for at, _ in raised.exception.found]


class Settings(unittest.TestCase):
    def test_settings_are_read_and_may_be_left_out(self):
        all_set = '{"quiet": ["example.net"], "limit": 3.0}'
        self.assertEqual(settings.read(all_set), (["example.net"], 3))
        self.assertEqual(settings.read("{}"), ([], settings.DEFAULT_LIMIT))

    def test_every_mistake_has_its_place(self):
        config = '{"limit": 0, "z": 1, "a/~": 2, "quiet": ["example.net", 7]}'
        self.assertEqual(places(config), ["/quiet/1", "/limit", "/a~1~0", "/z"])
        self.assertEqual(places('{"quiet": null, "limit": 1.5}'), ["/quiet", "/limit"])
        self.assertEqual(places('{"limit": true}'), ["/limit"])
        self.assertEqual(places('{"limit": 4294967296}'), ["/limit"])

    def test_what_is_no_object_is_a_mistake_of_the_whole(self):
        self.assertEqual(places("[]"), [""])
        self.assertEqual(places("{"), [""])
