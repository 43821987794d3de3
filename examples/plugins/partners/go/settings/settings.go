// Package settings reads the settings of the policy "partners": JSON in, checked values or all mistakes with JSON
// Pointers out. It knows nothing of the bindings, so `go test ./settings` runs anywhere.
package settings

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// DefaultLimit is the limit if the operator sets none.
const DefaultLimit = 100

// Settings is what the operator configured.
type Settings struct {
	// Quiet has the domains whose recipients are put into the group "quiet", as written.
	Quiet []string
	// Limit: with more recipients than this, a message is logged.
	Limit int
}

// Mistake is a mistake at a JSON Pointer (RFC 6901).
type Mistake struct {
	At, Text string
}

// Read gives the settings, or all mistakes, those of known keys first.
func Read(config string) (Settings, []Mistake) {
	var parsed any
	if err := json.Unmarshal([]byte(config), &parsed); err != nil {
		return Settings{}, []Mistake{{"", fmt.Sprintf("not JSON: %v", err)}}
	}
	keys, ok := parsed.(map[string]any)
	if !ok {
		return Settings{}, []Mistake{{"", "must be an object"}}
	}
	quiet, mistakes := readQuiet(keys)
	limit, ok := readLimit(keys)
	if !ok {
		mistakes = append(mistakes, Mistake{"/limit", "must be a positive integer"})
	}
	return Settings{quiet, limit}, append(mistakes, unknownKeys(keys)...)
}

func readQuiet(keys map[string]any) (quiet []string, mistakes []Mistake) {
	value, ok := keys["quiet"]
	if !ok {
		return nil, nil
	}
	domains, ok := value.([]any)
	if !ok {
		return nil, []Mistake{{"/quiet", "must be a list of domains"}}
	}
	for place, domain := range domains {
		if domain, ok := domain.(string); ok {
			quiet = append(quiet, domain)
		} else {
			mistakes = append(mistakes, Mistake{fmt.Sprintf("/quiet/%d", place), "must be a domain"})
		}
	}
	return quiet, mistakes
}

// JSON has one kind of numbers: 3.0 is an integer, as in JSON Schema.
func readLimit(keys map[string]any) (int, bool) {
	value, ok := keys["limit"]
	if !ok {
		return DefaultLimit, true
	}
	number, ok := value.(float64)
	// On wasm, int has 64 bits.
	return int(number), ok && number >= 1 && number <= math.MaxUint32 && number == math.Trunc(number)
}

func unknownKeys(keys map[string]any) (mistakes []Mistake) {
	for key := range keys {
		if key != "quiet" && key != "limit" {
			// RFC 6901 section 3.
			pointer := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
			mistakes = append(mistakes, Mistake{pointer, "unknown key"})
		}
	}
	slices.SortFunc(mistakes, func(a, b Mistake) int { return strings.Compare(a.At, b.At) })
	return mistakes
}
