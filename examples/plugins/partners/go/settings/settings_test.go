package settings

import (
	"slices"
	"testing"
)

func places(config string) (places []string) {
	_, mistakes := Read(config)
	for _, mistake := range mistakes {
		places = append(places, mistake.At)
	}
	return places
}

func TestSettingsAreReadAndMayBeLeftOut(t *testing.T) {
	all, mistakes := Read(`{"quiet": ["example.net"], "limit": 3.0}`)
	if len(mistakes) > 0 || all.Limit != 3 || !slices.Equal(all.Quiet, []string{"example.net"}) {
		t.Errorf("%v, %v", all, mistakes)
	}
	none, mistakes := Read("{}")
	if len(mistakes) > 0 || none.Limit != DefaultLimit || len(none.Quiet) > 0 {
		t.Errorf("%v, %v", none, mistakes)
	}
}

func TestEveryMistakeHasItsPlace(t *testing.T) {
	for config, expected := range map[string][]string{
		`{"limit": 0, "z": 1, "a/~": 2, "quiet": ["example.net", 7]}`: {"/quiet/1", "/limit", "/a~1~0", "/z"},
		`{"quiet": null, "limit": 1.5}`:                               {"/quiet", "/limit"},
		`{"limit": true}`:                                             {"/limit"},
		`{"limit": 4294967296}`:                                       {"/limit"},
		`[]`:                                                          {""},
		`{`:                                                           {""},
	} {
		if found := places(config); !slices.Equal(found, expected) {
			t.Errorf("%s: %q", config, found)
		}
	}
}
