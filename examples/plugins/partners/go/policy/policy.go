// Package policy is the policy "partners" in Go: it refuses, groups and marks mail. ../../README.md describes the policy.
//
// The packages wit_component/pintle_plugin_* are the bindings, which wit-bindgen generates from wit/.
package policy

import (
	"fmt"
	"strconv"
	"strings"

	calls "wit_component/pintle_plugin_calls"
	gateway "wit_component/pintle_plugin_gateway"
	log "wit_component/pintle_plugin_log"
	message "wit_component/pintle_plugin_message"
	plugin "wit_component/pintle_plugin_plugin"
	transaction "wit_component/pintle_plugin_transaction"
	types "wit_component/pintle_plugin_types"
	"wit_component/settings"

	witTypes "go.bytecodealliance.org/pkg/wit/types"
)

// What Configure computes. It runs on every new instance, so these are the only globals that may be kept.
var (
	quiet = map[string]bool{}
	limit = settings.DefaultLimit
)

func Describe() plugin.Manifest {
	return plugin.Manifest{
		Id:           "pintle.partners",
		Version:      "0.1.0",
		Summary:      "Refuses, groups and marks mail: one policy in five languages",
		ConfigSchema: witTypes.None[string](),
		Wants:        []string{"edit-headers"},
		More:         []witTypes.Tuple2[string, string]{{F0: "language", F1: "Go"}},
	}
}

func Configure(config string) []plugin.ConfigError {
	read, mistakes := settings.Read(config)
	var errors []plugin.ConfigError
	for _, mistake := range mistakes {
		errors = append(errors, plugin.ConfigError{At: mistake.At, Text: mistake.Text})
	}
	if len(errors) > 0 {
		return errors
	}
	quiet = map[string]bool{}
	for _, domain := range gateway.ToAscii(read.Quiet) {
		quiet[domain] = true
	}
	limit = read.Limit
	if result := calls.OnlyClients("on-message", "strangers"); result.IsErr() {
		text := "only-clients: " + described(result.Err())
		return []plugin.ConfigError{{At: "", Text: text}}
	}
	return nil
}

func OnRcpt(rcpt types.Recipient) types.Verdict {
	switch {
	case rcpt.Address.Local == "blocked":
		return reject(550, "5.7.1", "No mail to blocked")
	case rcpt.Address.Local == "busy":
		busy := reply(451, "4.7.1", "busy takes mail later")
		return types.MakeVerdictDefer(witTypes.Some(busy))
	case quiet[rcpt.Address.Domain]:
		orTrap(transaction.SetGroup(rcpt.Id, "quiet"))
	}
	return types.MakeVerdictNext()
}

func OnMessage() types.Verdict {
	if carriesTestVirus() {
		return reject(554, "5.7.1", "the message carries a test virus")
	}
	recipients := orTrap(transaction.Recipients())
	subjects := orTrap(message.HeadersShown([]string{"Subject"}))
	if anyContains(subjects, "offer") {
		judgeOffer(recipients)
	}
	if anyContains(subjects, "hold me") {
		orTrap(transaction.Quarantine(nil, "policy", "the subject asks for it"))
	}
	reportCount(len(recipients))
	return types.MakeVerdictNext()
}

func carriesTestVirus() bool {
	for _, part := range orTrap(message.Parts()) {
		found := message.FindInPart(part.Index, []byte("virus-test-string"), false, 1)
		if len(orTrap(found)) > 0 {
			return true
		}
	}
	return false
}

func anyContains(subjects []message.Field, text string) bool {
	for _, subject := range subjects {
		if strings.Contains(strings.ToLower(subject.Value), text) {
			return true
		}
	}
	return false
}

func judgeOffer(recipients []types.Recipient) {
	orTrap(transaction.SetScore("offer", 1.5))
	var picky []uint32
	for _, rcpt := range recipients {
		if rcpt.Address.Local == "picky" {
			picky = append(picky, rcpt.Id)
		}
	}
	if len(picky) > 0 {
		refusal := reply(550, "5.7.1", "picky takes no mail of this kind")
		orTrap(transaction.Refuse(picky, refusal))
	}
}

func reportCount(count int) {
	orTrap(transaction.SetFact("seen", strconv.Itoa(count)))
	if count > limit {
		fields := []witTypes.Tuple2[string, string]{
			{F0: "recipients", F1: strconv.Itoa(count)},
			{F0: "limit", F1: strconv.Itoa(limit)},
		}
		log.Write(log.Level_Warn, "more recipients than the limit", fields)
	}
	header := types.Header{Name: "X-Partners", Value: fmt.Sprintf("grüße %d", count)}
	placed := witTypes.Tuple2[message.Position, types.Header]{F0: message.MakePositionBottom(), F1: header}
	result := message.EditHeaders([]message.HeaderEdit{message.MakeHeaderEditAdd(placed)})
	// The operator need not grant edit-headers; the rest of the policy works without it.
	if result.IsErr() && result.Err().Tag() == types.HostError_Denied {
		return
	}
	orTrap(result)
}

func reject(code uint16, enhanced, text string) types.Verdict {
	return types.MakeVerdictReject(witTypes.Some(reply(code, enhanced, text)))
}

func reply(code uint16, enhanced, text string) types.Reply {
	return types.Reply{Code: code, Enhanced: witTypes.Some(enhanced), Text: text}
}

// orTrap ends the call when the host refused what must not be refused. All changes of the call are dropped then, and the
// operator's on_fault decides about the mail.
func orTrap[T any](result witTypes.Result[T, types.HostError]) T {
	if result.IsErr() {
		panic("the gateway refused a call: " + described(result.Err()))
	}
	return result.Ok()
}

func described(err types.HostError) string {
	switch err.Tag() {
	case types.HostError_Denied:
		return "denied: " + err.Denied()
	case types.HostError_Unavailable:
		return "unavailable: " + err.Unavailable()
	case types.HostError_Limit:
		return "limit: " + err.Limit()
	case types.HostError_Invalid:
		return "invalid: " + err.Invalid()
	case types.HostError_Temporary:
		return "temporary: " + err.Temporary()
	case types.HostError_Timeout:
		return "timeout"
	default:
		return "other: " + err.Other()
	}
}
